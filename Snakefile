# From a reference genome to a DNA language model, classifiers, scores and one report.
#
#   .venv/bin/snakemake --workflow-profile workflow/profiles/default
#
# The configuration is config/config.yaml, unless --configfile names others (several are merged, the last one wins).

from snakemake.utils import min_version

min_version("9.8")

if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/tokenize.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/derive.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/report.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        [f"{RESULTS}/compare.tsv"] if SETTINGS.compare else [],


onstart:
    hold_workflow()
