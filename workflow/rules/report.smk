localrules:
    settings,


rule settings:
    output:
        f"{RESULTS}/settings.json",
    log:
        f"{RESULTS}/logs/settings.log",
    conda:
        "../envs/genossm.yaml"
    params:
        settings=json.dumps(config),
    message:
        "settings: the configuration of this run, defaults filled in"
    shell:
        "printf '%s\n' {params.settings:q} > {output} 2> {log}"


rule report:
    input:
        settings=f"{RESULTS}/settings.json",
        provenance=expand(f"{RESULTS}/{{file}}.provenance.json", file=FETCHED),
        tokens=f"{RESULTS}/tokens/{GENOME}.h5",
        pretrain=f"{RESULTS}/pretrain/{MODEL}/metrics.json",
        compare=[f"{RESULTS}/compare.tsv"] if SETTINGS.compare else [],
        task=expand(f"{RESULTS}/tasks/{{task}}/task.json", task=TASKS),
        finetune=expand(f"{RESULTS}/finetune/{{task}}/metrics.json", task=TASKS),
        score=[
            *expand(f"{RESULTS}/score/{{name}}.tsv", name=SETTINGS.score.inputs),
            *expand(
                f"{RESULTS}/score/{{name}}.{{task}}.tsv",
                name=SETTINGS.score.inputs,
                task=TASKS,
            ),
        ],
        benchmark=expand(f"{RESULTS}/benchmarks/{{job}}.tsv", job=BENCHMARKS),
    output:
        html=f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    retries: 1
    conda:
        "../envs/genossm.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        options=lambda wildcards, input: report_options(input),
        version=__version__,
    shell:
        "genossm report --output {output.html} {params.options} > {log} 2>&1"
