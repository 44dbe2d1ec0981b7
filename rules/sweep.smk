# The points of a sweep (config key `sweep`) side by side, from their summaries; no model is loaded.
SWEEP_FILES = []
# Where a seed is swept, how much results differ from seed to seed.
SEEDS_TABLE = {}
# Where the number of training records is swept, how results grow with it.
SCALING = {}
if PLAN.sweep:
    SWEEP_FILES = [
        f"results/{PLAN.sweep.name}/{file}"
        for file in ["sweep.json", "sweep.csv", "sweep.md", "figures/sweep.svg", "figures/sweep.png"]
    ]
    if any(key.endswith(".seed") for key in PLAN.sweep.keys):
        SWEEP_FILES.append(f"results/{PLAN.sweep.name}/seeds.csv")
        SEEDS_TABLE = {"seeds": "results/{sweep}/seeds.csv"}
    if "training.examples" in PLAN.sweep.keys:
        SWEEP_FILES += [f"results/{PLAN.sweep.name}/figures/scaling.{suffix}" for suffix in ["svg", "png"]]
        SCALING = {
            "scaling_svg": "results/{sweep}/figures/scaling.svg",
            "scaling_png": report(
                "results/{sweep}/figures/scaling.png", category="{sweep}", caption="../workflow/report/scaling.rst"
            ),
        }


rule sweep:
    input:
        summaries=lambda wildcards: expand("results/{run}/summary.json", run=PLAN.sweep.points),
    output:
        **SEEDS_TABLE,
        **SCALING,
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
        code=code("sweep"),
    script:
        "../workflow/scripts/sweep.py"
