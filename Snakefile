# callwright: from records to a tool-calling model and the proof that it learned.
import os

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")
if not config and not os.path.isfile("config/config.yaml"):
    raise WorkflowError(
        f"there is no config/config.yaml in {os.getcwd()}: start Snakemake in {workflow.basedir}, or with -d {workflow.basedir}"
    )


configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/model.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/package.smk"
include: "rules/evaluate.smk"
include: "rules/serve.smk"
include: "rules/report.smk"
include: "rules/sweep.smk"


rule all:
    default_target: True
    input:
        expand("results/{run}/report.html", run=REPORTED),
        [f"{data_of(run)}/report.html" for run in REPORTED],
        expand("results/{run}/summary.json", run=PLAN.runs),
        expand("results/{run}/MODEL_CARD.md", run=PLAN.runs),
        SWEEP_FILES,
