"""State-space kernels: one folder an operator, a plain reference beside every fast path."""

if __name__ != "genossm.kernels":
    raise ImportError("import genossm.kernels; the bare name 'kernels' is Hugging Face's package")
