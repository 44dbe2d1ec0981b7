# What came out, for people: one summary, the figures, two pages. Made from stored numbers; no model is loaded.
FIGURES = ["training", "convergence", "performance", "memory", "funnel", "items"]
if any(suite.startswith("robust_") for run in RUNS.values() for suite in suites(run)):
    FIGURES.append("robustness")
if any(condition.threshold for run in RUNS.values() for condition in asked_conditions(run)):
    FIGURES.append("decision")


rule summarize:
    input:
        model=model_of,
        split=lambda wildcards: f"{data_of(wildcards.run)}/split.json",
        ledger=lambda wildcards: f"{data_of(wildcards.run)}/ledger.json",
        training="results/{run}/training/training.json",
        examples=lambda wildcards: for_suites("{examples}", wildcards.run),
        scores=lambda wildcards: for_suites("results/{run}/evaluation/{suite}/{condition}/scores.json", wildcards.run),
        rows=lambda wildcards: for_suites("results/{run}/evaluation/{suite}/{condition}/scores.jsonl", wildcards.run),
        generations=lambda wildcards: for_suites(
            "results/{run}/evaluation/{suite}/{condition}/generations.jsonl", wildcards.run
        ),
        audits=lambda wildcards: for_suites(f"results/{wildcards.run}/evaluation/{{suite}}/audit.json", wildcards.run),
        judge=judge_of,
        executed=executed_of,
        taught=taught_of,
        decision=lambda wildcards: "".join(decided_of(wildcards)) or [],
        benchmarks=benchmarks_of,
    output:
        "results/{run}/summary.json",
    log:
        "results/{run}/summarize.log",
    conda:
        "../environment.yml"
    params:
        lambda wildcards: RUNS[wildcards.run],
        code=code("summarize"),
    script:
        "../workflow/scripts/summarize.py"


rule taught:
    input:
        ledger=lambda wildcards: f"{data_of(wildcards.run)}/corrections.json",
        training="results/{run}/training/training.json",
        examples=lambda wildcards: for_suites("{examples}", wildcards.run),
        rows=lambda wildcards: for_suites("results/{run}/evaluation/{suite}/{condition}/scores.jsonl", wildcards.run),
    output:
        "results/{run}/taught.json",
    log:
        "results/{run}/taught.log",
    conda:
        "../environment.yml"
    params:
        code=code("taught"),
    script:
        "../workflow/scripts/taught.py"


rule data_report:
    input:
        model=model_of,
        ledger="results/{run}/data/ledger.json",
        rejections="results/{run}/data/rejections.jsonl",
        manifest="results/{run}/data/split.json",
        sets=expand("results/{{run}}/data/{name}.jsonl", name=["train", "valid", "test_seen", "test_unseen_tools"]),
    output:
        report("results/{run}/data/report.html", category="{run}", caption="../workflow/report/data.rst"),
    log:
        "results/{run}/data/report.log",
    conda:
        "../environment.yml"
    params:
        settings("data", "split"),
        code=code("data_report"),
    script:
        "../workflow/scripts/data_report.py"


rule figures:
    input:
        summary="results/{run}/summary.json",
        history="results/{run}/training/history.jsonl",
        rows=lambda wildcards: for_suites("results/{run}/evaluation/{suite}/{condition}/scores.jsonl", wildcards.run),
    output:
        **{f"{name}_svg": f"results/{{run}}/figures/{name}.svg" for name in FIGURES},
        **{
            f"{name}_png": report(
                f"results/{{run}}/figures/{name}.png",
                category="{run}",
                caption=f"../workflow/report/{name}.rst",
            )
            for name in FIGURES
        },
    log:
        "results/{run}/figures/figures.log",
    conda:
        "../environment.yml"
    params:
        code=code("figures"),
    script:
        "../workflow/scripts/figures.py"


rule report:
    input:
        summary="results/{run}/summary.json",
        figures=expand("results/{{run}}/figures/{name}.svg", name=FIGURES),
        rejections=lambda wildcards: f"{data_of(wildcards.run)}/rejections.jsonl",
        data_page=lambda wildcards: f"{data_of(wildcards.run)}/report.html",
        examples=lambda wildcards: for_suites("{examples}", wildcards.run),
        rows=lambda wildcards: for_suites("results/{run}/evaluation/{suite}/{condition}/scores.jsonl", wildcards.run),
        generations=lambda wildcards: for_suites(
            "results/{run}/evaluation/{suite}/{condition}/generations.jsonl", wildcards.run
        ),
    output:
        report("results/{run}/report.html", category="{run}", caption="../workflow/report/page.rst"),
    log:
        "results/{run}/report.log",
    conda:
        "../environment.yml"
    params:
        code=code("report"),
    script:
        "../workflow/scripts/report.py"
