"""Rule train: LoRA on the training tokens; resumes from its state folder when that fits."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.lora import snapshot
    from callwright.runtime import device
    from callwright.runtime.files import read_json, write_json
    from callwright.train import previous, trainer

    settings, files, run = snakemake.params[0]["training"], snakemake.input, Path(snakemake.output.adapter).parent
    data = dict([("train", files.train), ("valid", files.valid), *(("examples", path) for path in files.examples)])
    prefix, model = read_json(files.prefix), f"{files.model}/model.json"
    # With and without the prefix cache, sums are taken in another order: a run goes on as it began.
    cached = {what: prefix[what]["use"] for what in ("train", "validation")}
    learned = previous.about(files.train, files.valid, model, settings)
    if went_on := previous.begin(run, learned, settings):
        start = went_on
        settings, prefix, cached = {**settings, "iterations": settings["from_iterations"]}, None, None
        data["start"] = start / "adapters.safetensors"
    elif start := next(map(Path, files.start), None):
        data["start"] = start / "adapters.safetensors"
    summary = trainer.run(
        {
            "model_folder": files.model,
            "examples": None,
            **data,
            "start": start and str(start),
            "went_on": bool(went_on),
            "prefix_index": prefix,
            "settings": settings,
            "state_folder": f"{run}/state",
            "out_folder": snakemake.output.adapter,
            "history_path": snakemake.output.history,
            "fingerprint": snapshot.fingerprint({**settings, "cached": cached}, data, model, snakemake.params.code),
            "device": snakemake.config.get("device", {}),
            "log": snakemake.log[0],
        }
    )
    previous.keep(run, snakemake.output.adapter, learned)
    write_json(snakemake.output.summary, {**summary, "went_on": bool(went_on), "device": device.describe()})


job.run(snakemake, main, device=True)
