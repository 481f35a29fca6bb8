rule score:
    input:
        manifest=f"{RESULTS}/pretrain/{MODEL}/MANIFEST.json",
        fasta=lambda wildcards: located(SETTINGS.score.inputs[wildcards.name]),
    output:
        table=f"{RESULTS}/score/{{name}}.tsv",
    log:
        f"{RESULTS}/logs/score/{{name}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score.{{name}}.tsv"
    retries: 1
    conda:
        "../envs/genossm.yaml"
    threads: 64
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        checkpoint=subpath(input.manifest, parent=True),
        options=options(**SETTINGS.score.model_dump(exclude={"inputs"})),
        version=__version__,
    shell:
        "genossm score --checkpoint {params.checkpoint} {input.fasta} --output {output.table} {params.options} > {log} 2>&1"


rule classify:
    input:
        manifest=f"{RESULTS}/finetune/{{task}}/MANIFEST.json",
        fasta=lambda wildcards: located(SETTINGS.score.inputs[wildcards.name]),
    output:
        table=f"{RESULTS}/score/{{name}}.{{task}}.tsv",
    log:
        f"{RESULTS}/logs/score/{{name}}.{{task}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score.{{name}}.{{task}}.tsv"
    retries: 1
    conda:
        "../envs/genossm.yaml"
    threads: 64
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        checkpoint=subpath(input.manifest, parent=True),
        options=options(**SETTINGS.score.model_dump(exclude={"inputs", "passes"})),
        version=__version__,
    shell:
        "genossm score --checkpoint {params.checkpoint} {input.fasta} --output {output.table} {params.options} > {log} 2>&1"
