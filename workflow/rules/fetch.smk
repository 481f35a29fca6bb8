rule fetch_genome:
    input:
        lambda wildcards: local_source(SETTINGS.fetch.genomes[wildcards.genome].source),
    output:
        fasta=f"{RESULTS}/genomes/{{genome}}.fa.gz",
        index=f"{RESULTS}/genomes/{{genome}}.fa.gz.index.json",
        provenance=f"{RESULTS}/genomes/{{genome}}.fa.gz.provenance.json",
    log:
        f"{RESULTS}/logs/fetch/genome.{{genome}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch.genome.{{genome}}.tsv"
    retries: 2
    conda:
        "../envs/genossm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=240,
    params:
        source=lambda wildcards: fetch_source(SETTINGS.fetch.genomes[wildcards.genome]),
        options=lambda wildcards: fetch_options(
            "fasta", SETTINGS.fetch.genomes[wildcards.genome]
        ),
        version=__version__,
    shell:
        "genossm fetch {params.source} --output {output.fasta} {params.options} > {log} 2>&1"


rule fetch_annotation:
    input:
        lambda wildcards: local_source(
            SETTINGS.fetch.annotations[wildcards.annotation].source
        ),
    output:
        gff3=f"{RESULTS}/annotations/{{annotation}}.gff3.gz",
        provenance=f"{RESULTS}/annotations/{{annotation}}.gff3.gz.provenance.json",
    log:
        f"{RESULTS}/logs/fetch/annotation.{{annotation}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch.annotation.{{annotation}}.tsv"
    retries: 2
    conda:
        "../envs/genossm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        source=lambda wildcards: fetch_source(
            SETTINGS.fetch.annotations[wildcards.annotation]
        ),
        options=lambda wildcards: fetch_options(
            "gff3", SETTINGS.fetch.annotations[wildcards.annotation]
        ),
        version=__version__,
    shell:
        "genossm fetch {params.source} --output {output.gff3} {params.options} > {log} 2>&1"


rule fetch_intervals:
    input:
        lambda wildcards: local_source(
            SETTINGS.fetch.intervals[wildcards.intervals].source
        ),
    output:
        table=f"{RESULTS}/intervals/{{intervals}}.csv.gz",
        provenance=f"{RESULTS}/intervals/{{intervals}}.csv.gz.provenance.json",
    log:
        f"{RESULTS}/logs/fetch/intervals.{{intervals}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch.intervals.{{intervals}}.tsv"
    retries: 2
    conda:
        "../envs/genossm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        source=lambda wildcards: fetch_source(
            SETTINGS.fetch.intervals[wildcards.intervals]
        ),
        options=lambda wildcards: fetch_options(
            "table", SETTINGS.fetch.intervals[wildcards.intervals]
        ),
        version=__version__,
    shell:
        "genossm fetch {params.source} --output {output.table} {params.options} > {log} 2>&1"
