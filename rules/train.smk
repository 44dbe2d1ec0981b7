# LoRA fine-tuning. Its state (snapshots, history) lies in results/<run>/state, which no rule declares: Snakemake
# deletes declared outputs before a rerun, and an interrupted training is to be resumed.


rule train:
    input:
        code=code("train"),
        model=model_of,
        train="results/{run}/tokens/train.jsonl",
        valid="results/{run}/tokens/valid.jsonl",
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
