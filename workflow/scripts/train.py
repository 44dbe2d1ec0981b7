"""Rule train: LoRA on the training tokens; resumes from its state folder when that fits."""

from pathlib import Path

from callsmith.runtime import job


def main(snakemake):
    from callsmith.lora.loop import train
    from callsmith.runtime import device
    from callsmith.runtime.files import read_jsonl, sha256_file, sha256_json, write_json

    settings = snakemake.params[0]["training"]
    inputs = [snakemake.input.train, snakemake.input.valid, f"{snakemake.input.model}/model.json"]
    summary = train(
        model_folder=snakemake.input.model,
        train_rows=list(read_jsonl(snakemake.input.train)),
        valid_rows=list(read_jsonl(snakemake.input.valid)),
        settings=settings,
        state_folder=Path("results", snakemake.wildcards.run, "state"),
        out_folder=snakemake.output.adapter,
        history_path=snakemake.output.history,
        fingerprint=sha256_json([settings, *map(sha256_file, inputs)]),
    )
    write_json(snakemake.output.summary, {**summary, "device": device.describe()})


job.run(snakemake, main, device=True)
