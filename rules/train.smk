# LoRA fine-tuning. Its state (snapshots, history) lies in results/<run>/state, which no rule declares: Snakemake
# deletes declared outputs before a rerun, and an interrupted training is to be resumed.


# The outputs of the blocks that are not trained lie in results/models/<model>/frozen_prefix, which no rule declares: runs,
# seeds and points of a sweep share them record by record.
rule frozen_prefix:
    input:
        model=model_of,
        train=tokens_of("train"),
        valid=tokens_of("valid"),
    output:
        "results/{run}/training/frozen_prefix.json",
    log:
        "results/{run}/training/frozen_prefix.log",
    benchmark:
        "results/{run}/benchmarks/frozen_prefix.tsv"
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        prefix_settings,
        code=code("frozen_prefix"),
    script:
        "../workflow/scripts/frozen_prefix.py"


rule train:
    input:
        model=model_of,
        train=tokens_of("train"),
        valid=tokens_of("valid"),
        prefix=prefix_index,
        examples=selection_examples,
        corrections=trained_corrections_of,
        start=adapter_to_begin_with,
    output:
        adapter=directory("results/{run}/adapter"),
        history="results/{run}/training/history.jsonl",
        summary="results/{run}/training/training.json",
    log:
        "results/{run}/training/train.log",
    benchmark:
        "results/{run}/benchmarks/train.tsv"
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        settings("training"),
        code=training_code,
    script:
        "../workflow/scripts/train.py"
