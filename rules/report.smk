# What a reader sees: figures, one self-contained page, and summary.json. All from stored JSON; no model is loaded.


def evaluated(name):
    """The file `name` of every suite and condition of the run."""
    return lambda wildcards: expand(
        "results/{run}/evaluation/{suite}/{condition}/" + name,
        run=wildcards.run,
        suite=suites(wildcards.run),
        condition=RUNS[wildcards.run]["evaluation"]["conditions"],
    )


def benchmarks(wildcards):
    """The times of all rules of the run."""
    files = [f"results/models/{RUNS[wildcards.run]['model']['name']}/{rule}.tsv" for rule in ["fetch_model", "convert_model"]]
    names = ["curate", "split", "tokenize_train", "tokenize_valid", "train"]
    for suite in suites(wildcards.run):
        for condition in RUNS[wildcards.run]["evaluation"]["conditions"]:
            names += [f"generate_{suite}_{condition}", f"score_{suite}_{condition}"]
    return files + [f"results/{wildcards.run}/benchmarks/{name}.tsv" for name in names]


rule summarize:
    input:
        benchmarks,
        code=code("summarize"),
        scores=evaluated("scores.json"),
        training="results/{run}/training/training.json",
        history="results/{run}/training/history.jsonl",
        ledger="results/{run}/data/ledger.json",
        split="results/{run}/data/split.json",
        model="results/models/{model}/source.json",
    output:
        "results/{run}/summary.json",
