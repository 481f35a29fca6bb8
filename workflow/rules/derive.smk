rule derive_coding:
    input:
        genome=lambda wildcards: f"{RESULTS}/genomes/{SETTINGS.derive.tasks[wildcards.task].genome}.fa.gz",
        annotation=lambda wildcards: f"{RESULTS}/annotations/{SETTINGS.derive.tasks[wildcards.task].annotation}.gff3.gz",
    output:
        train=f"{RESULTS}/tasks/{{task}}/train.csv",
        valid=f"{RESULTS}/tasks/{{task}}/valid.csv",
        test=f"{RESULTS}/tasks/{{task}}/test.csv",
        holdout=f"{RESULTS}/tasks/{{task}}/holdout.fa",
        about=f"{RESULTS}/tasks/{{task}}/task.json",
    log:
        f"{RESULTS}/logs/derive/{{task}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/derive.{{task}}.tsv"
    wildcard_constraints:
        task=any_of(CODING_TASKS),
    retries: 1
    conda:
        "../envs/genossm.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        folder=subpath(output.train, parent=True),
        options=lambda wildcards: coding_options(wildcards.task),
        version=__version__,
    shell:
        "genossm derive coding --genome {input.genome} --annotation {input.annotation} --output {params.folder}"
        " {params.options} > {log} 2>&1"


rule derive_intervals:
    input:
        genome=lambda wildcards: f"{RESULTS}/genomes/{SETTINGS.derive.tasks[wildcards.task].genome}.fa.gz",
        intervals=lambda wildcards: interval_files(wildcards.task),
    output:
        train=f"{RESULTS}/tasks/{{task}}/train.csv",
        valid=f"{RESULTS}/tasks/{{task}}/valid.csv",
        test=f"{RESULTS}/tasks/{{task}}/test.csv",
        holdout=f"{RESULTS}/tasks/{{task}}/holdout.fa",
        about=f"{RESULTS}/tasks/{{task}}/task.json",
    log:
        f"{RESULTS}/logs/derive/{{task}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/derive.{{task}}.tsv"
    wildcard_constraints:
        task=any_of(INTERVAL_TASKS),
    retries: 1
    conda:
        "../envs/genossm.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        folder=subpath(output.train, parent=True),
        options=lambda wildcards: interval_options(wildcards.task),
        version=__version__,
    shell:
        "genossm derive intervals --genome {input.genome} --output {params.folder} {params.options} > {log} 2>&1"
