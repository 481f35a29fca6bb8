rule compare:
    input:
        expand(f"{RESULTS}/pretrain/{{model}}/metrics.json", model=MODEL_FILES),
    output:
        table=f"{RESULTS}/compare.tsv",
    log:
        f"{RESULTS}/logs/compare.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare.tsv"
    retries: 1
    conda:
        "../envs/genossm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        folders=lambda wildcards, input: [str(Path(path).parent) for path in input],
        version=__version__,
    shell:
        "genossm compare {params.folders:q} --output {output.table} > {log} 2>&1"
