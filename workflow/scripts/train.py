"""Rule train: LoRA on the training tokens; resumes from its state folder when that fits."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.lora import snapshot
    from callwright.runtime import device
    from callwright.runtime.files import read_json, write_json
    from callwright.train import trainer

    settings, files = snakemake.params[0]["training"], snakemake.input
    data = dict([("train", files.train), ("valid", files.valid), *(("examples", path) for path in files.examples)])
    prefix = read_json(files.prefix)
    # With and without the prefix cache, sums are taken in another order: a run goes on as it began.
    cached = {what: prefix[what]["use"] for what in ("train", "validation")}
    model, code = f"{files.model}/model.json", snakemake.params.code
    summary = trainer.run(
        {
            "model_folder": files.model,
            "examples": None,
            **data,
            "prefix_index": prefix,
            "settings": settings,
            "state_folder": str(Path(snakemake.output.adapter).with_name("state")),
            "out_folder": snakemake.output.adapter,
            "history_path": snakemake.output.history,
            "fingerprint": snapshot.fingerprint({**settings, "cached": cached}, data, model, code),
            "device": snakemake.config.get("device", {}),
            "log": snakemake.log[0],
        }
    )
    write_json(snakemake.output.summary, {**summary, "device": device.describe()})


job.run(snakemake, main, device=True)
