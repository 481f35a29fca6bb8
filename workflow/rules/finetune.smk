rule finetune:
    input:
        weights=f"{RESULTS}/pretrain/{MODEL}/model.safetensors",
        manifest=f"{RESULTS}/pretrain/{MODEL}/MANIFEST.json",
        train=f"{RESULTS}/tasks/{{task}}/train.csv",
        valid=f"{RESULTS}/tasks/{{task}}/valid.csv",
        test=f"{RESULTS}/tasks/{{task}}/test.csv",
    output:
        weights=f"{RESULTS}/finetune/{{task}}/model.safetensors",
        config=f"{RESULTS}/finetune/{{task}}/config.json",
        manifest=f"{RESULTS}/finetune/{{task}}/MANIFEST.json",
        metrics=f"{RESULTS}/finetune/{{task}}/metrics.json",
        predictions=f"{RESULTS}/finetune/{{task}}/predictions.csv",
        examples=f"{RESULTS}/finetune/{{task}}/examples.json",
        page=f"{RESULTS}/finetune/{{task}}/report.html",
    log:
        f"{RESULTS}/logs/finetune/{{task}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/finetune.{{task}}.tsv"
    retries: 1
    conda:
        "../envs/genossm.yaml"
    threads: 64
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        checkpoint=subpath(input.weights, parent=True),
        folder=subpath(output.weights, parent=True),
        options=options(
            seed=SETTINGS.seed, **SETTINGS.finetune.model_dump(exclude={"tasks"})
        ),
        version=__version__,
    message:
        "finetune {wildcards.task}: its progress is in {log}"
    shell:
        "genossm finetune --checkpoint {params.checkpoint} --train {input.train} --valid {input.valid}"
        " --test {input.test} --output {params.folder} {params.options} > {log} 2>&1"
