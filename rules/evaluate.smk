# The same test items, answered by the base model and with the adapter; scores are recomputed from stored answers.


rule fetch_suites:
    output:
        manifest="results/suites/bfcl.json",
        folder=directory("results/suites/bfcl"),
    log:
        "results/suites/fetch_suites.log",
    conda:
        "../environment.yml"
    params:
        code=code("fetch_suites"),
    script:
        "../workflow/scripts/fetch_suites.py"


rule suite:
    input:
        suite_source,
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
        code=code("suite"),
    script:
        "../workflow/scripts/suite.py"


rule tasks:
    input:
        source_file,
        toolset=lambda wildcards: RUNS[wildcards.run]["toolset"],
        train="results/{run}/data/train.jsonl",
        valid="results/{run}/data/valid.jsonl",
    output:
        "results/{run}/data/executed.jsonl",
    log:
        "results/{run}/data/tasks.log",
    conda:
        "../environment.yml"
    params:
        settings("data"),
        code=code("tasks"),
    script:
        "../workflow/scripts/tasks.py"


rule abstain:
    input:
        source_file,
        toolset=lambda wildcards: RUNS[wildcards.run]["toolset"],
        train="results/{run}/data/train.jsonl",
        valid="results/{run}/data/valid.jsonl",
    output:
        "results/{run}/data/abstain.jsonl",
    log:
        "results/{run}/data/abstain.log",
    conda:
        "../environment.yml"
    params:
        settings("data"),
        code=code("abstain"),
    script:
        "../workflow/scripts/abstain.py"


rule robust:
    input:
        test_seen=lambda wildcards: f"{data_of(wildcards.run)}/test_seen.jsonl",
        valid=lambda wildcards: f"{data_of(wildcards.run)}/valid.jsonl",
    output:
        examples="results/{run}/suites/{suite}.jsonl",
        about="results/{run}/suites/{suite}.json",
    log:
        "results/{run}/suites/{suite}.log",
    wildcard_constraints:
        suite="|".join(ROBUST) or "(?!)",
    conda:
        "../environment.yml"
    params:
        lambda wildcards: RUNS[wildcards.run]["evaluation"]["items"],
        code=code("robust"),
    script:
        "../workflow/scripts/robust.py"


# Early: that it cannot be had should not be found out after the training.
rule tool_encoder:
    input:
        source=encoder_source,
    output:
        encoder="results/{run}/tool_encoder.safetensors",
        about="results/{run}/tool_encoder.json",
    log:
        "results/{run}/tool_encoder.log",
    priority: 10
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        seed=lambda wildcards: RUNS[wildcards.run]["data"]["seed"],
        code=code("tool_encoder"),
    script:
        "../workflow/scripts/tool_encoder.py"


rule decide:
    input:
        model=model_of,
        adapter="results/{run}/adapter",
        examples=lambda wildcards: f"{data_of(wildcards.run)}/valid.jsonl",
        encoder=encoder_of,
    output:
        "results/{run}/decision.json",
    log:
        "results/{run}/decide.log",
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        settings("data", "toolset"),
        grounding=grounding_of,
        shown=lambda wildcards: RUNS[wildcards.run]["evaluation"]["tools_shown"],
        begun=adapter_to_begin_with,
        code=code("decide"),
    script:
        "../workflow/scripts/decide.py"


rule generate:
    input:
        model=answering_model,
        adapter=adapter_of,
        decision=decision_of,
        encoder=encoder_that_answers,
        free=free_answers,
        train=examples_of_prompt,
        examples=lambda wildcards: suite_file(wildcards.run, wildcards.suite),
    output:
        generations="results/{run}/evaluation/{suite}/{condition}/generations.jsonl",
        about="results/{run}/evaluation/{suite}/{condition}/generate.json",
    log:
        "results/{run}/evaluation/{suite}/{condition}/generate.log",
    benchmark:
        "results/{run}/benchmarks/generate_{suite}_{condition}.tsv"
    wildcard_constraints:
        condition="|".join(CONDITIONS),
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        generation_settings,
        code=generation_code,
    script:
        "../workflow/scripts/generate.py"


# A model of others answers the same items. It needs no model of ours, and no training makes it answer again.
rule ask_peer:
    input:
        examples=lambda wildcards: suite_file(wildcards.run, wildcards.suite),
    output:
        generations="results/{run}/evaluation/{suite}/{condition}/generations.jsonl",
        about="results/{run}/evaluation/{suite}/{condition}/generate.json",
    log:
        "results/{run}/evaluation/{suite}/{condition}/ask_peer.log",
    benchmark:
        "results/{run}/benchmarks/generate_{suite}_{condition}.tsv"
    wildcard_constraints:
        condition="|".join(PEERS) or "(?!)",
    conda:
        "../environment.yml"
    params:
        peer_settings,
        code=code("ask_peer"),
    script:
        "../workflow/scripts/ask_peer.py"


# Nothing is scored before its answers were audited. A failed audit leaves audit-failed.json, which no rule declares,
# and every answer.
rule audit:
    input:
        model=model_of,
        examples=lambda wildcards: suite_file(wildcards.run, wildcards.suite),
        generations=audited_answers,
        sets=lambda wildcards: expand(
            f"{data_of(wildcards.run)}/{{name}}.jsonl", name=["train", "valid", "test_seen", "test_unseen_tools"]
        ),
        split=lambda wildcards: f"{data_of(wildcards.run)}/split.json",
    output:
        "results/{run}/evaluation/{suite}/audit.json",
    log:
        "results/{run}/evaluation/{suite}/audit.log",
    conda:
        "../environment.yml"
    params:
        audit_settings,
        code=code("audit"),
    script:
        "../workflow/scripts/audit.py"


# One job scores all answers to a suite that lie under a run's name: starting Python takes longer than scoring does.
# Runs and suites differ in which conditions these are, so there is a rule for each set of them.
for number, (scored, names, runs) in enumerate(scored_together()):

    rule:
        name:
            f"score_{number + 1}" if number else "score"
        input:
            audit="results/{run}/evaluation/{suite}/audit.json",
            examples=lambda wildcards: suite_file(wildcards.run, wildcards.suite),
            generations=expand("results/{{run}}/evaluation/{{suite}}/{condition}/generations.jsonl", condition=scored),
        output:
            scores=expand("results/{{run}}/evaluation/{{suite}}/{condition}/scores.jsonl", condition=scored),
            summaries=expand("results/{{run}}/evaluation/{{suite}}/{condition}/scores.json", condition=scored),
        log:
            "results/{run}/evaluation/{suite}/score.log",
        benchmark:
            "results/{run}/benchmarks/score_{suite}.tsv"
        wildcard_constraints:
            run="|".join(map(re.escape, runs)),
            suite="|".join(names),
        conda:
            "../environment.yml"
        params:
            code=code("score"),
        script:
            "../workflow/scripts/score.py"


rule judge:
    input:
        examples=lambda wildcards: for_suites("{examples}", wildcards.run),
        rows=lambda wildcards: for_suites("results/{run}/evaluation/{suite}/{condition}/scores.jsonl", wildcards.run),
        generations=lambda wildcards: for_suites(
            "results/{run}/evaluation/{suite}/{condition}/generations.jsonl", wildcards.run
        ),
    output:
        "results/{run}/judge.json",
    log:
        "results/{run}/judge.log",
    conda:
        "../environment.yml"
    resources:
        gpu=1,
    params:
        lambda wildcards: RUNS[wildcards.run]["evaluation"]["judge"],
        code=code("judge"),
    script:
        "../workflow/scripts/judge.py"


rule execute:
    input:
        tasks=lambda wildcards: suite_file(wildcards.run, "executed"),
        generations=lambda wildcards: [
            f"results/{answered_as(wildcards.run, condition)}/evaluation/executed/{condition}/generations.jsonl"
            for condition in conditions(RUNS[wildcards.run], "executed")
        ],
    output:
        rows="results/{run}/executed.jsonl",
        summary="results/{run}/executed.json",
    log:
        "results/{run}/execute.log",
    conda:
        "../environment.yml"
    params:
        code=code("execute"),
    script:
        "../workflow/scripts/execute.py"
