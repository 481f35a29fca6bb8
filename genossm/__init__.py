"""GenoSSM: DNA language models with state-space layers, from a reference genome to scores."""

__version__ = "0.1.0"
