# The checkpoints of a run under way lie beside the outputs and are not declared: Snakemake removes declared outputs when
# a job starts or fails. A run that was cut short goes on from its newest checkpoint, which holds the history as well.
rule pretrain:
    input:
        tokens=f"{RESULTS}/tokens/{GENOME}.h5",
        model=lambda wildcards: MODEL_FILES[wildcards.model],
    output:
        weights=f"{RESULTS}/pretrain/{{model}}/model.safetensors",
        config=f"{RESULTS}/pretrain/{{model}}/config.json",
        manifest=f"{RESULTS}/pretrain/{{model}}/MANIFEST.json",
        metrics=f"{RESULTS}/pretrain/{{model}}/metrics.json",
        history=f"{RESULTS}/pretrain/{{model}}/metrics.jsonl",
        baselines=f"{RESULTS}/pretrain/{{model}}/baselines.json",
    log:
        f"{RESULTS}/logs/pretrain/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/pretrain.{{model}}.tsv"
    wildcard_constraints:
        model=any_of(MODEL_FILES),
    retries: 2
    conda:
        "../envs/genossm.yaml"
    threads: 64
    resources:
        mem_mb=8000,
        runtime=1440,
    params:
        folder=subpath(output.weights, parent=True),
        options=options(
            seed=SETTINGS.seed, **SETTINGS.pretrain.model_dump(exclude={"genome"})
        ),
        version=__version__,
    message:
        "pretrain {wildcards.model}: its progress is in {log}"
    shell:
        "genossm pretrain {input.tokens} --output {params.folder} --model {input.model} {params.options}"
        " --restart > {log} 2>&1"
