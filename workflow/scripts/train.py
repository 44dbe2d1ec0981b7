"""Rule train: LoRA on the training tokens; resumes from its state folder when that fits."""

from callwright.runtime import job


def main(snakemake):
    from callwright import trainer
    from callwright.lora import snapshot
    from callwright.runtime import device
    from callwright.runtime.files import read_json, write_json

    settings, files = snakemake.params[0]["training"], snakemake.input
    data = dict([("train", files.train), ("valid", files.valid), *(("examples", path) for path in files.examples)])
    trunk = read_json(files.trunk)
    # With and without the trunk cache, sums are taken in another order: a run goes on as it began.
    cached = {what: trunk[what]["use"] for what in ("train", "validation")}
    model, code = f"{files.model}/model.json", files.code
    summary = trainer.run(
        {
            "model_folder": files.model,
            "examples": None,
            **data,
            "trunk_index": trunk,
            "settings": settings,
            "state_folder": f"results/{snakemake.wildcards.run}/state",
            "out_folder": snakemake.output.adapter,
            "history_path": snakemake.output.history,
            "fingerprint": snapshot.fingerprint({**settings, "cached": cached}, data, model, code),
            "device": snakemake.config.get("device", {}),
            "log": snakemake.log[0],
        }
    )
    write_json(snakemake.output.summary, {**summary, "device": device.describe()})


job.run(snakemake, main, device=True)
