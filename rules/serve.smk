# The packaged model behind stock mlx_lm.server and behind `callsmith serve`: is what is served what was evaluated?


def served_suite(run):
    """The suite whose items the servers answer: the run's first."""
    return next(iter(suites(RUNS[run])))


def served_answers(wildcards):
    """The fused model's answers to that suite, where the run has them; else they are generated again."""
    suite = served_suite(wildcards.run)
    there = "fused" in conditions(RUNS[wildcards.run], suite)
    return [f"results/{wildcards.run}/evaluation/{suite}/fused/generations.jsonl"] if there else []


def serving_settings(wildcards):
    """What decides about the check: its own settings, and how the suite is answered."""
    run = RUNS[wildcards.run]
    answers = {key: run["evaluation"][key] for key in ("max_output_tokens", "batch_size")}
    return {**run["serving"], **answers, "suite": served_suite(wildcards.run)}


rule serve_check_run:
    input:
        code=code("serve_check_run"),
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
    script:
        "../workflow/scripts/serve_check_run.py"


# `snakemake --cores 1 serve_check`: the check of every run.
rule serve_check:
    input:
        expand("results/{run}/serve_check.md", run=PLAN.runs),
