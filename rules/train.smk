# LoRA fine-tuning. Its state (snapshots, history) lies in results/<run>/state, which no rule declares: Snakemake
# deletes declared outputs before a rerun, and an interrupted training is to be resumed.


# The outputs of the blocks that are not trained lie in results/models/<model>/trunk, which no rule declares: runs,
# seeds and points of a sweep share them record by record.
rule trunk:
    input:
        code=code("trunk"),
        model=model_of,
        train=tokens_of("train"),
        valid=tokens_of("valid"),
    output:
        "results/{run}/training/trunk.json",
    log:
        "results/{run}/training/trunk.log",
    benchmark:
        "results/{run}/benchmarks/trunk.tsv"
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        trunk_settings,
    script:
        "../workflow/scripts/trunk.py"


rule train:
    input:
        code=training_code,
        model=model_of,
        train=tokens_of("train"),
        valid=tokens_of("valid"),
        trunk=trunk_index,
        examples=selection_examples,
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
    script:
        "../workflow/scripts/train.py"
