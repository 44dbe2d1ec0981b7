# What came out, for people: one summary, the figures, one page. Made from stored numbers; no model is loaded.
FIGURES = ["training", "memory", "evaluation", "items"]


rule summarize:
    input:
        code=code("summarize"),
        model=model_of,
        split="results/{run}/data/split.json",
        ledger="results/{run}/data/ledger.json",
        training="results/{run}/training/training.json",
        examples=lambda wildcards: for_suites("results/{run}/data/{suite}.jsonl", wildcards.run),
        scores=lambda wildcards: for_suites("results/{run}/evaluation/{suite}/{condition}/scores.json", wildcards.run),
        rows=lambda wildcards: for_suites("results/{run}/evaluation/{suite}/{condition}/scores.jsonl", wildcards.run),
        benchmarks=benchmarks_of,
    output:
        "results/{run}/summary.json",
    log:
        "results/{run}/summarize.log",
    conda:
        "../environment.yml"
    params:
        lambda wildcards: RUNS[wildcards.run],
    script:
        "../workflow/scripts/summarize.py"


rule figures:
    input:
        code=code("figures"),
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
    script:
        "../workflow/scripts/figures.py"


rule report:
    input:
        code=code("report"),
        summary="results/{run}/summary.json",
        figures=expand("results/{{run}}/figures/{name}.svg", name=FIGURES),
        rejections="results/{run}/data/rejections.jsonl",
        examples=lambda wildcards: for_suites("results/{run}/data/{suite}.jsonl", wildcards.run),
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
    script:
        "../workflow/scripts/report.py"
