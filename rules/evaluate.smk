# The same test items, answered by the base model and with the adapter; scores are recomputed from stored answers.


rule generate:
    input:
        code=code("generate"),
        model=model_of,
        adapter=adapter_of,
        examples="results/{run}/data/{suite}.jsonl",
    output:
        "results/{run}/evaluation/{suite}/{condition}/generations.jsonl",
    log:
        "results/{run}/evaluation/{suite}/{condition}/generate.log",
    benchmark:
        "results/{run}/benchmarks/generate_{suite}_{condition}.tsv"
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        settings("data", "evaluation"),
    script:
        "../workflow/scripts/generate.py"


rule score:
    input:
        code=code("score"),
        examples="results/{run}/data/{suite}.jsonl",
        generations="results/{run}/evaluation/{suite}/{condition}/generations.jsonl",
    output:
        scores="results/{run}/evaluation/{suite}/{condition}/scores.jsonl",
        summary="results/{run}/evaluation/{suite}/{condition}/scores.json",
    log:
        "results/{run}/evaluation/{suite}/{condition}/score.log",
    benchmark:
        "results/{run}/benchmarks/score_{suite}_{condition}.tsv"
    conda:
        "../environment.yml"
    script:
        "../workflow/scripts/score.py"
