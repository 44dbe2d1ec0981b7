# From a source to curated, split and tokenized examples. Records in = examples kept + rejections, at each step.


rule curate:
    input:
        source_file,
        model=model_of,
    output:
        examples="results/{run}/data/examples.jsonl",
        rejections="results/{run}/data/rejections.jsonl",
        ledger="results/{run}/data/ledger.json",
    log:
        "results/{run}/data/curate.log",
    benchmark:
        "results/{run}/benchmarks/curate.tsv"
    conda:
        "../environment.yml"
    params:
        settings("toolset", "data", "split"),
        code=code("curate"),
    script:
        "../workflow/scripts/curate.py"


rule split:
    input:
        examples="results/{run}/data/examples.jsonl",
        model=model_of,
    output:
        train="results/{run}/data/train.jsonl",
        valid="results/{run}/data/valid.jsonl",
        test_seen="results/{run}/data/test_seen.jsonl",
        test_unseen_tools="results/{run}/data/test_unseen_tools.jsonl",
        test_examples="results/{run}/data/test_examples.jsonl",
        manifest="results/{run}/data/split.json",
    log:
        "results/{run}/data/split.log",
    benchmark:
        "results/{run}/benchmarks/split.tsv"
    conda:
        "../environment.yml"
    params:
        settings("data", "split"),
        code=code("split"),
    script:
        "../workflow/scripts/split.py"


# A new line in the file of corrections reruns this rule, the training and what was asked of its model: neither the other
# examples nor the base model's answers to them.
rule corrections:
    input:
        corrections_file,
        tests=expand("results/{{run}}/data/{name}.jsonl", name=["test_seen", "test_unseen_tools", "test_examples"]),
        model=model_of,
    output:
        train="results/{run}/data/corrections.jsonl",
        test="results/{run}/data/test_corrections.jsonl",
        ledger="results/{run}/data/corrections.json",
    log:
        "results/{run}/data/corrections.log",
    conda:
        "../environment.yml"
    params:
        settings("corrections", "data"),
        code=code("corrections"),
    script:
        "../workflow/scripts/corrections.py"


rule tokenize_examples:
    input:
        examples="results/{run}/data/{split}.jsonl",
        corrections=trained_corrections,
        model=model_of,
    output:
        "results/{run}/tokens/{split}.jsonl",
    log:
        "results/{run}/tokens/{split}.log",
    benchmark:
        "results/{run}/benchmarks/tokenize_{split}.tsv"
    wildcard_constraints:
        split="train|valid",
    conda:
        "../environment.yml"
    params:
        settings("data"),
        code=code("tokenize_examples"),
    script:
        "../workflow/scripts/tokenize_examples.py"
