# What all rules share: the checked configuration of each run, and a digest of the modules that a script imports.
import atexit
import os
import re
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The project's folder: not that of a workflow which uses this one as a module.
ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=False)).parent
SCRIPTS = ROOT / "workflow" / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))
# For the jobs too, whose own path ends with this folder: another checkout that is installed must not win over it.
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")])))

from callwright.data import corrections
from callwright.data.formats.inputs import REQUESTS, list_files
from callwright.data.formats.requests import tool_sources
from callwright.data.own_suites import add_own_suites
from callwright.data.preflight import preflight
from callwright.data.toolset.yaml_lines import tool_files
from callwright.evals.conditions import CONDITIONS
from callwright.runtime import sweep
from callwright.runtime.config import conditions, plan, starts, suites
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file
from callwright.runtime.job import last_words
from callwright.runtime.peers import PREFIX, peer_of
from callwright.runtime.provenance import code_files, digest, hashes

try:
    PLAN = plan(config, ROOT / "workflow" / "schemas" / "config.schema.yaml", ROOT)
    for run in PLAN.everything.values():
        add_own_suites(run)
        preflight(run, Path(workflow.basedir))
except CallwrightError as error:
    said = str(error)
    if Path.cwd().resolve() != Path(workflow.basedir).resolve():
        said += (
            f". The configuration read is that of {Path.cwd()}, where Snakemake was started: if another one was meant, "
            f"start it in {workflow.basedir}, or with -d {workflow.basedir}"
        )
    # Snakemake adds where it was raised: the line to act on is said once more, after all of that.
    atexit.register(print, f"\n{said}", file=sys.stderr)
    raise WorkflowError(said)
# All runs by name, with those that only own what the points of a sweep share.
RUNS = PLAN.everything
# The runs with a page of their own; a sweep has one table and one plot instead.
REPORTED = [] if PLAN.sweep else list(PLAN.runs)
# For each run the one under whose name its data and tokens, its base answers and its frozen prefix index lie.
OWNERS = {kind: sweep.owners(kind, RUNS) for kind in ("data", "base", "frozen_prefix")}
MODELS = {run["model"]["name"]: run["model"] for run in RUNS.values()}
# The conditions that are models of others.
PEERS = sorted({PREFIX + name for run in RUNS.values() for name in run["evaluation"]["peers"]})
# The suites that come from elsewhere, each with its file; None: from BFCL.
OWN_SUITES = {"test_seen", "test_unseen_tools", "test_examples", "test_corrections", "executed", "abstain"}
# Those made from the run's test_seen: each item changed in a way that leaves its answer as it is.
ROBUST = sorted({name for run in RUNS.values() for name in suites(run) if name.startswith("robust_")})
SUITES = {
    name: path for run in RUNS.values() for name, path in suites(run).items() if name not in {*OWN_SUITES, *ROBUST}
}


onerror:
    # After everything that Snakemake says of a failed job.
    atexit.register(print, last_words(log[0]), file=sys.stderr)


wildcard_constraints:
    run="|".join(map(re.escape, RUNS)),
    model="|".join(map(re.escape, MODELS)),
    suite="[A-Za-z0-9_]+",
    condition="[a-z0-9_]+",


@cache
def code(rule_name, without=()):
    """A digest of a script and of all that it imports, for the parameters: an edit of any of it reruns the rule.

    `without`: modules that the rule's settings leave unused, with all that only they import.
    """
    return digest(hashes(code_files(SCRIPTS / f"{rule_name}.py", SCRIPTS, without)))


def settings(*keys):
    """A `params` function that gives these parts of the run's configuration as one dict."""
    return lambda wildcards: {key: RUNS[wildcards.run][key] for key in keys}


def generation_code(wildcards):
    """What decides about answers: few-shot prompts and the grammar only where a condition has them."""
    condition = CONDITIONS[wildcards.condition]
    unused = {"callwright.evals.fewshot": condition.fewshot, "callwright.decoding.constrain": condition.grammar}
    return code("generate", tuple(module for module, used in unused.items() if not used))


def free_answers(wildcards):
    """The answers of the same model without a grammar, where the run asks for them: some stand under it as well."""
    run, suite = wildcards.run, wildcards.suite
    free = CONDITIONS[wildcards.condition].free()
    if free not in conditions(RUNS[run], suite):
        return []
    return [f"results/{answered_as(run, free)}/evaluation/{suite}/{free}/generations.jsonl"]


def generation_settings(wildcards):
    """What decides about answers: not which other suites and conditions there are, nor what is made of them."""
    run = RUNS[wildcards.run]
    others = ("suites", "conditions", "only", "peers", "also_first", "judge", "primary", "comparisons")
    others += ("max_length_stops", "tool_encoder", "tools_shown")  # told in the decision
    evaluation = {key: value for key, value in run["evaluation"].items() if key not in others}
    # A toolset's answers are as long as its tools make them: the limit follows where it is too low.
    fixed = wildcards.suite in OWN_SUITES and run["data"]["source"] != "toolset"
    return {"data": run["data"], "evaluation": evaluation, "own": fixed}


def peer_settings(wildcards):
    """What decides about a peer's answers: whom to ask, and how much; nothing of the run's own model."""
    evaluation = RUNS[wildcards.run]["evaluation"]
    peer = evaluation["peers"][peer_of(wildcards.condition)]
    found = {"peer": peer, "items": evaluation["items"]}
    # No input: a run's package is made of its report, which has the peer's answers.
    return {**found, "weights": sha256_file(Path(peer["weights"]).expanduser())} if "weights" in peer else found


def model_of(wildcards):
    """The folder of the run's converted model."""
    return f"results/models/{RUNS[wildcards.run]['model']['name']}/mlx"


def answering_model(wildcards):
    """The folder of the model that a condition answers with, before an adapter is put on it."""
    return f"results/{wildcards.run}/fused" if CONDITIONS[wildcards.condition].fused else model_of(wildcards)


def data_of(run):
    """The folder of the run's examples and splits, which runs with equal settings share."""
    return f"results/{OWNERS['data'][run]}/data"


def tokens_of(split):
    """An input function: the run's token rows of a split."""
    return lambda wildcards: f"results/{OWNERS['data'][wildcards.run]}/tokens/{split}.jsonl"


def answered_as(run, condition):
    """The run under whose name a condition's answers lie: the base model's are shared, a tuned model's are its own.

    A peer's are shared as the base model's are.
    """
    return run if condition not in PEERS and CONDITIONS[condition].tuned else OWNERS["base"][run]


def source_file(wildcards):
    """The local files that the examples come from; none when they come from Hugging Face."""
    run = RUNS[wildcards.run]
    own = {"source": run["data"]["source"], "path": run["data"]["path"]}
    if own["source"] == "toolset":
        own["path"] = run["toolset"]
    found = []
    for entry in [own, *run["data"]["mix"]]:
        if entry["source"] == "toolset":
            found += [entry["path"], *tool_files(entry["path"])]
        elif entry["path"]:
            found += [str(path) for _, path in list_files(entry["path"])]
    return list(dict.fromkeys(found))


def corrections_file(wildcards):
    """The run's file of corrections, where there is one already."""
    path = corrections.settings_of(RUNS[wildcards.run])["path"]
    return [path] if path and Path(path).is_file() else []


def trained_corrections(wildcards):
    """The corrections among the training examples; validation has none."""
    return trained_corrections_of(wildcards) if wildcards.split == "train" else []


def trained_corrections_of(wildcards):
    """The corrections that are trained, as examples, where the run has a file of them."""
    return [f"{data_of(wildcards.run)}/corrections.jsonl"] if corrections_file(wildcards) else []


def adapter_to_begin_with(wildcards):
    """The folder of the adapter that a training begins with, where the configuration names one."""
    _, start = starts(RUNS[wildcards.run]["training"])
    return [start] if start else []


def decision_of(wildcards):
    """The fitted decision of a condition that calls from a threshold on."""
    return [f"results/{wildcards.run}/decision.json"] if CONDITIONS[wildcards.condition].threshold else []


def encoder_source(wildcards):
    """What a tool encoder is learned from: files of requests; or the file of one that was learned before."""
    source = RUNS[wildcards.run]["evaluation"]["tool_encoder"]
    if source is None:
        return []
    ready = Path(source).expanduser()
    if (ready / "tool_encoder.safetensors").is_file():
        ready /= "tool_encoder.safetensors"
    return [str(ready)] if ready.suffix == ".safetensors" else [str(path) for _, path in list_files(source)]


def encoder_of(wildcards):
    """The tool encoder of a run that has one and is asked as a server answers."""
    named = RUNS[wildcards.run]["evaluation"]["tool_encoder"]
    served = grounding_of(wildcards) == "ask"
    return [f"results/{wildcards.run}/tool_encoder.safetensors"] if named and served else []


def encoder_that_answers(wildcards):
    """The tool encoder of a condition in which it joins."""
    return encoder_of(wildcards) if CONDITIONS[wildcards.condition].threshold else []


def asked_conditions(run):
    """All conditions of a run but its peers."""
    return [CONDITIONS[name] for suite in suites(run) for name in conditions(run, suite) if name in CONDITIONS]


def decided_of(wildcards):
    """The fitted decision of a run that answers as it is served, which its package then holds."""
    served = any(condition.threshold for condition in asked_conditions(RUNS[wildcards.run]))
    return [f"results/{wildcards.run}/decision.json"] if served else []


def grounding_of(wildcards):
    """What a server of this run does with calls that nobody said all of: ask, where that is measured."""
    return "ask" if any(condition.grounding for condition in asked_conditions(RUNS[wildcards.run])) else "off"


def adapter_of(wildcards):
    """The adapter of a condition that has one."""
    if CONDITIONS[wildcards.condition].general:
        return adapter_to_begin_with(wildcards)
    return [f"results/{wildcards.run}/adapter"] if CONDITIONS[wildcards.condition].adapter else []


def examples_of_prompt(wildcards):
    """The training examples, for a condition whose prompt shows some of them."""
    return [f"{data_of(wildcards.run)}/train.jsonl"] if CONDITIONS[wildcards.condition].fewshot else []


def selects_by_tool_calls(wildcards):
    """Whether the run keeps the adapter that answers most validation examples correctly."""
    return RUNS[wildcards.run]["training"]["select"] == "tool_calls"


def training_code(wildcards):
    """What decides about an adapter: generation and scorer too, where they choose it, and else not."""
    return code("train", () if selects_by_tool_calls(wildcards) else ("callwright.evals", "callwright.data.records"))


def selection_examples(wildcards):
    """The validation examples, where the adapter is chosen by them."""
    return [f"{data_of(wildcards.run)}/valid.jsonl"] if selects_by_tool_calls(wildcards) else []


def prefix_settings(wildcards):
    """The run's training settings, and whether other runs use the same frozen prefix; points of a sweep always do."""
    owner = OWNERS["frozen_prefix"]
    shared = PLAN.sweep is not None or list(owner.values()).count(owner[wildcards.run]) > 1
    return {"shared": shared, "training": RUNS[wildcards.run]["training"]}


def package_settings(wildcards):
    """What decides about the fused model: not what else is made of it."""
    run = RUNS[wildcards.run]
    package = {key: run["package"][key] for key in ("bits", "tolerance", "agreement", "margin", "items")}
    return {"package": package, "style": run["data"]["format"]}


def export_settings(wildcards):
    """What decides about the package and the check of its GGUF file."""
    run = RUNS[wildcards.run]
    return {"package": run["package"], "style": run["data"]["format"]}


def examples_to_check(wildcards):
    """The examples on which a GGUF export is compared with the adapter, where there is one."""
    exports = RUNS[wildcards.run]["package"]["exports"]
    return [f"{data_of(wildcards.run)}/valid.jsonl"] if "gguf" in exports else []


def source_to_export(wildcards):
    """The files that the base was converted from, where an export is one of them with other weights."""
    run = RUNS[wildcards.run]
    return [f"results/models/{run['model']['name']}/source"] if "cact" in run["package"]["exports"] else []


def prefix_index(wildcards):
    """The index of the run's prefix cache, under the name of the run that owns it.

    Not `ancient`: Snakemake 9.27.1 does not look at the parameters of a job above which another is to run.
    """
    return f"results/{OWNERS['frozen_prefix'][wildcards.run]}/training/frozen_prefix.json"


def suite_file(run, suite):
    """The examples of a suite: one of the run's own test sets, one made from it, which lies with the run that owns the
    base answers (it has as many items), or one from elsewhere, which all runs share."""
    if suite in ROBUST:
        return f"results/{OWNERS['base'][run]}/suites/{suite}.jsonl"
    return f"results/suites/{suite}.jsonl" if suite in SUITES else f"{data_of(run)}/{suite}.jsonl"


def suite_source(wildcards):
    """What a suite is made from: BFCL's data, or the file that the configuration names."""
    path = SUITES[wildcards.suite]
    if path is None:
        return "results/suites/bfcl"
    files = [str(file) for _, file in list_files(path)]
    return [*files, *(tools for file in files if file.endswith(REQUESTS) for tools in tool_sources(file))]


def for_suites(pattern, run):
    """The files of all suites and conditions of a run, each once; `pattern` has `{suite}`, `{condition}` and `{run}`,
    the run that answered, or is `{examples}`, the items."""
    found = [
        pattern.format(
            run=answered_as(run, condition), suite=suite, condition=condition, examples=suite_file(run, suite)
        )
        for suite in suites(RUNS[run])
        for condition in conditions(RUNS[run], suite)
    ]
    return list(dict.fromkeys(found))


def stored_under(run, suite):
    """The conditions whose answers to a suite lie under a run's name: its own, and what others take from it."""
    return list(
        dict.fromkeys(
            condition
            for point in PLAN.runs
            if suite in suites(RUNS[point])
            for condition in conditions(RUNS[point], suite)
            if answered_as(point, condition) == run
        )
    )


def scored_together():
    """Each set of conditions that are stored together, with the suites and the runs for which it is the one.

    `[(conditions, suites, runs)]`; the runs that are asked for come first, and nearly always there is one set alone.
    """
    groups = {}
    for run in dict.fromkeys([*PLAN.runs, *RUNS]):
        of_run = {}
        for suite in suites(RUNS[run]):
            if stored := stored_under(run, suite):
                of_run.setdefault(tuple(stored), []).append(suite)
        for stored, names in of_run.items():
            groups.setdefault((stored, tuple(names)), []).append(run)
    return [(*key, runs) for key, runs in groups.items()]


def audited_answers(wildcards):
    """The answers that are audited together: of all conditions of a run; of a run that only owns what the points of a
    sweep share, those that these take from it."""
    run, suite = wildcards.run, wildcards.suite
    audited = conditions(RUNS[run], suite) if run in PLAN.runs else stored_under(run, suite)
    return [
        f"results/{answered_as(run, condition)}/evaluation/{suite}/{condition}/generations.jsonl"
        for condition in audited
    ]


def audit_settings(wildcards):
    """What decides about an audit: what decided about the answers, and how many of them may have been cut."""
    most = RUNS[wildcards.run]["evaluation"]["max_length_stops"]
    return {**generation_settings(wildcards), "max_length_stops": most}


def benchmarks_of(wildcards):
    """Time and memory of all jobs of a run that the summary reports."""
    run, model = wildcards.run, RUNS[wildcards.run]["model"]["name"]
    owned = [
        *((OWNERS["data"][run], job) for job in ("curate", "split", "tokenize_train", "tokenize_valid")),
        (OWNERS["frozen_prefix"][run], "frozen_prefix"),
        (run, "train"),
    ]
    return [
        *expand("results/models/{model}/{job}.tsv", model=model, job=["fetch_model", "convert_model"]),
        *(f"results/{owner}/benchmarks/{job}.tsv" for owner, job in owned),
        *for_suites("results/{run}/benchmarks/generate_{suite}_{condition}.tsv", run),
    ]


def judge_of(wildcards):
    """The judge's verdicts, where the run asks one."""
    return f"results/{wildcards.run}/judge.json" if RUNS[wildcards.run]["evaluation"]["judge"] else []


def taught_of(wildcards):
    """What the corrections taught, where the run has any."""
    return f"results/{wildcards.run}/taught.json" if corrections_file(wildcards) else []


def executed_of(wildcards):
    """What the tasks' calls did to the built-in world, where the run answers that suite."""
    return f"results/{wildcards.run}/executed.json" if "executed" in suites(RUNS[wildcards.run]) else []


def served_suite(run):
    """The suite whose items the servers answer: the run's first."""
    return next(iter(suites(RUNS[run])))


def served_answers(wildcards):
    """The fused model's answers to that suite, where the run has them; else they are generated again."""
    suite = served_suite(wildcards.run)
    there = "fused" in conditions(RUNS[wildcards.run], suite)
    return [f"results/{wildcards.run}/evaluation/{suite}/fused/generations.jsonl"] if there else []


def serving_settings(wildcards):
    """What decides about the check: its own settings, and how the suite is answered."""
    run = RUNS[wildcards.run]
    answers = {key: run["evaluation"][key] for key in ("max_output_tokens", "batch_size")}
    return {**run["serving"], **answers, "suite": served_suite(wildcards.run)}
