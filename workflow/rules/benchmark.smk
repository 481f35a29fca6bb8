rule benchmark:
    input:
        weights=f"{RESULTS}/pretrain/{MODEL}/model.safetensors",
        manifest=f"{RESULTS}/pretrain/{MODEL}/MANIFEST.json",
    output:
        table=f"{RESULTS}/benchmark/{{suite}}/results.tsv",
        results=f"{RESULTS}/benchmark/{{suite}}/results.json",
    log:
        f"{RESULTS}/logs/benchmark/{{suite}}.log",
    wildcard_constraints:
        suite="[a-z-]+",
    retries: 1
    conda:
        "../envs/genossm.yaml"
    threads: 64
    resources:
        mem_mb=16000,
        runtime=2880,
    params:
        checkpoint=subpath(input.weights, parent=True),
        folder=subpath(output.table, parent=True),
        options=options(
            seed=SETTINGS.seed,
            **SETTINGS.benchmark.model_dump(exclude={"tasks"}),
            task=SETTINGS.benchmark.tasks,
        ),
        version=__version__,
    message:
        "benchmark {wildcards.suite}: its progress is in {log}"
    shell:
        "genossm benchmark run --suite {wildcards.suite} --checkpoint {params.checkpoint} --output {params.folder}"
        " {params.options} > {log} 2>&1"
