# The same test items, answered by the base model and with the adapter; scores are recomputed from stored answers.


rule fetch_suites:
    input:
        code=code("fetch_suites"),
    output:
        manifest="results/suites/bfcl.json",
        folder=directory("results/suites/bfcl"),
    log:
        "results/suites/fetch_suites.log",
    conda:
        "../environment.yml"
    script:
        "../workflow/scripts/fetch_suites.py"


rule suite:
    input:
        suite_source,
        code=code("suite"),
    output:
        examples="results/suites/{suite}.jsonl",
        about="results/suites/{suite}.json",
    log:
        "results/suites/{suite}.log",
    wildcard_constraints:
        suite="|".join(SUITES) or "(?!)",
    conda:
        "../environment.yml"
    params:
        lambda wildcards: SUITES[wildcards.suite],
    script:
        "../workflow/scripts/suite.py"


rule generate:
    input:
        code=code("generate"),
        model=model_of,
        adapter=adapter_of,
        examples=lambda wildcards: suite_file(wildcards.run, wildcards.suite),
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
        generation_settings,
    script:
        "../workflow/scripts/generate.py"


rule score:
    input:
        code=code("score"),
        examples=lambda wildcards: suite_file(wildcards.run, wildcards.suite),
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
