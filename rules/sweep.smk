# The points of a sweep (config key `sweep`) side by side, from their summaries; no model is loaded.
SWEEP_FILES = []
if PLAN.sweep:
    SWEEP_FILES = [
        f"results/{PLAN.sweep.name}/{file}"
        for file in ["sweep.json", "sweep.csv", "sweep.md", "figures/sweep.svg", "figures/sweep.png"]
    ]


rule sweep:
    input:
        code=code("sweep"),
        summaries=lambda wildcards: expand("results/{run}/summary.json", run=PLAN.sweep.points),
    output:
        json="results/{sweep}/sweep.json",
        csv="results/{sweep}/sweep.csv",
        markdown="results/{sweep}/sweep.md",
        svg="results/{sweep}/figures/sweep.svg",
        png=report("results/{sweep}/figures/sweep.png", category="{sweep}", caption="../workflow/report/sweep.rst"),
    log:
        "results/{sweep}/sweep.log",
    wildcard_constraints:
        sweep=re.escape(PLAN.sweep.name) if PLAN.sweep else "(?!)",
    conda:
        "../environment.yml"
    params:
        lambda wildcards: {"keys": PLAN.sweep.keys, "points": PLAN.sweep.points},
    script:
        "../workflow/scripts/sweep.py"
