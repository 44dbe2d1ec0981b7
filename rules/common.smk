# What all rules share: the checked configuration of each run, and the list of the modules that a script imports.
import sys
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path

from snakemake.exceptions import WorkflowError

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))

from callsmith.runtime.config import resolve
from callsmith.runtime.errors import CallsmithError

try:
    RUNS = resolve(config, Path(workflow.basedir) / "workflow" / "schemas" / "config.schema.yaml")
except CallsmithError as error:
    raise WorkflowError(str(error))
MODELS = {run["model"]["name"]: run["model"] for run in RUNS.values()}


wildcard_constraints:
    run="|".join(RUNS),
    model="|".join(MODELS),
    suite="[A-Za-z0-9_]+",
    condition="[a-z_]+",


# Modules that decide nothing about a result, and that every script imports: an edit of them reruns nothing.
AROUND_EVERY_JOB = {"logs.py", "job.py", "errors.py", "device.py", "blas.py", "provenance.py", "__init__.py"}


@cache
def code(rule_name):
    """The script of a rule and the library files that it imports; an edit of any of them reruns the rule."""
    finder = ModuleFinder(path=[str(SCRIPTS)])
    finder.run_script(str(SCRIPTS / f"{rule_name}.py"))
    files = {Path(module.__file__) for module in finder.modules.values() if module.__file__}
    templates = {path for file in files for path in (file.parent / "templates").glob("*.jinja")}
    return sorted(
        str(path.relative_to(workflow.basedir)) for path in files | templates if path.name not in AROUND_EVERY_JOB
    )


def settings(*keys):
    """A `params` function that gives these parts of the run's configuration as one dict."""
    return lambda wildcards: {key: RUNS[wildcards.run][key] for key in keys}


def model_of(wildcards):
    """The folder of the run's converted model."""
    return f"results/models/{RUNS[wildcards.run]['model']['name']}/mlx"


def source_file(wildcards):
    """The local file that the examples come from; none when they come from Hugging Face."""
    run = RUNS[wildcards.run]
    path = run["toolset"] if run["data"]["source"] == "toolset" else run["data"]["path"]
    return [path] if path else []


def adapter_of(wildcards):
    """The adapter of a condition that has one."""
    return [f"results/{wildcards.run}/adapter"] if wildcards.condition == "tuned" else []


def for_suites(pattern, run):
    """The files of all suites and conditions of a run, each once."""
    evaluation = RUNS[run]["evaluation"]
    found = expand(pattern, run=run, suite=evaluation["suites"], condition=evaluation["conditions"])
    return list(dict.fromkeys(found))


def benchmarks_of(wildcards):
    """Time and memory of all jobs of a run that the summary reports."""
    run, model = wildcards.run, RUNS[wildcards.run]["model"]["name"]
    jobs = ["curate", "split", "tokenize_train", "tokenize_valid", "train"]
    return [
        *expand("results/models/{model}/{job}.tsv", model=model, job=["fetch_model", "convert_model"]),
        *expand("results/{run}/benchmarks/{job}.tsv", run=run, job=jobs),
        *for_suites("results/{run}/benchmarks/generate_{suite}_{condition}.tsv", run),
    ]
