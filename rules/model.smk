# The base model: fetched once, converted once, shared by all runs that name it.


rule fetch_model:
    output:
        manifest="results/models/{model}/source.json",
        folder=directory("results/models/{model}/source"),
    log:
        "results/models/{model}/fetch_model.log",
    benchmark:
        "results/models/{model}/fetch_model.tsv"
    conda:
        "../environment.yml"
    params:
        lambda wildcards: {key: MODELS[wildcards.model][key] for key in ("name", "license", "source")},
        code=code("fetch_model"),
    script:
        "../workflow/scripts/fetch_model.py"


rule convert_model:
    input:
        manifest="results/models/{model}/source.json",
        folder="results/models/{model}/source",
    output:
        folder=directory("results/models/{model}/mlx"),
    log:
        "results/models/{model}/convert_model.log",
    benchmark:
        "results/models/{model}/convert_model.tsv"
    conda:
        "../environment.yml"
    params:
        lambda wildcards: {key: MODELS[wildcards.model][key] for key in ("call_format", "inexact", "marker_rows")},
        code=code("convert_model"),
    script:
        "../workflow/scripts/convert_model.py"
