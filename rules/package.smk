# The fine-tuned model for use elsewhere: fused, described, and packed.


rule fuse:
    input:
        model=model_of,
        adapter="results/{run}/adapter",
        examples=lambda wildcards: f"{data_of(wildcards.run)}/valid.jsonl",
    output:
        folder=directory("results/{run}/fused"),
        report="results/{run}/fused.json",
    log:
        "results/{run}/fuse.log",
    benchmark:
        "results/{run}/benchmarks/fuse.tsv"
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        package_settings,
        code=code("fuse"),
    script:
        "../workflow/scripts/fuse.py"


# The card lies beside the adapter: its folder is an output of the training.
rule model_card:
    input:
        summary="results/{run}/summary.json",
    output:
        "results/{run}/MODEL_CARD.md",
    log:
        "results/{run}/model_card.log",
    conda:
        "../environment.yml"
    params:
        code=code("model_card"),
    script:
        "../workflow/scripts/model_card.py"


rule pack:
    input:
        adapter="results/{run}/adapter",
        fused="results/{run}/fused",
        report="results/{run}/fused.json",
        summary="results/{run}/summary.json",
        decision=decided_of,
        encoder=encoder_of,
        source=source_to_export,
        examples=examples_to_check,
    output:
        directory("results/{run}/package"),
    log:
        "results/{run}/pack.log",
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        export_settings,
        code=code("pack"),
    script:
        "../workflow/scripts/pack.py"


# `snakemake --cores 1 package`: the package of every run.
rule package:
    input:
        expand("results/{run}/package", run=PLAN.runs),
