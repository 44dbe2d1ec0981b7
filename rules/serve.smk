# The packaged model behind stock mlx_lm.server and behind `callwright serve`: is what is served what was evaluated?


rule serve_check_run:
    input:
        package="results/{run}/package",
        examples=lambda wildcards: suite_file(wildcards.run, served_suite(wildcards.run)),
        generations=served_answers,
    output:
        json="results/{run}/serve_check.json",
        table="results/{run}/serve_check.md",
    log:
        "results/{run}/serve_check.log",
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        serving_settings,
        code=code("serve_check_run"),
    script:
        "../workflow/scripts/serve_check_run.py"


# `snakemake --cores 1 serve_check`: the check of every run.
rule serve_check:
    input:
        expand("results/{run}/serve_check.md", run=PLAN.runs),
