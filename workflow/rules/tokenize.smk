rule tokenize:
    input:
        fasta=f"{RESULTS}/genomes/{{genome}}.fa.gz",
    output:
        tokens=f"{RESULTS}/tokens/{{genome}}.h5",
    log:
        f"{RESULTS}/logs/tokenize/{{genome}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tokenize.{{genome}}.tsv"
    retries: 1
    conda:
        "../envs/genossm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        options=lambda wildcards: tokenize_options(wildcards.genome),
        version=__version__,
    shell:
        "genossm tokenize {input.fasta} --output {output.tokens} {params.options} > {log} 2>&1"
