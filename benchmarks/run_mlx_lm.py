"""mlx-lm's own trainer on a job of `work.py`, in a process of its own: python run_mlx_lm.py JOB RESULT.

It gets the batches of our trainer in our order, padded and masked in its own way, with one correction: the length
handed over is one less, since mlx-lm trains the pad token behind each record.
With `as_installed` it is left as pip installs it: 4-bit weights and the BLAS of MLX's wheel.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path


def main(job: dict, out: Path) -> None:
    if not job["as_installed"]:
        from callwright.runtime import blas

        blas.load(os.cpu_count() or 1)
    import mlx.core as mx
    import mlx.optimizers
    import numpy as np
    from mlx.utils import tree_flatten
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.utils import linear_to_lora_layers

    from callwright.lora import batches
    from callwright.models.load import load
    from callwright.runtime.files import read_jsonl, write_json

    mx.set_default_device(mx.cpu)
    settings = job["training"]
    lora = settings["lora"]
    model, _ = load(job["model"], dequantize=not job["as_installed"])
    weights = sum(value.nbytes for _, value in tree_flatten(model.parameters()))
    model.freeze()
    linear_to_lora_layers(model, lora["layers"], {**lora, "keys": set(job["keys"])})
    model.load_weights(job["initial"], strict=False)
    records = batches.to_records(list(read_jsonl(job["rows"])), "benchmark")

    def iterate(**_):
        for _, batch in batches.stream(records, settings["batch_size"], settings["seed"]):
            width = 1 + 32 * -(-max(record.length for record in batch.records) // 32)
            tokens = np.zeros((len(batch.records), width), np.int32)
            for row, record in zip(tokens, batch.records, strict=True):
                row[: record.length] = record.tokens
            spans = [(int(record.positions[0]) + 1, record.length - 1) for record in batch.records]
            yield mx.array(tokens), mx.array(spans)

    steps = []

    class Note:
        def on_train_loss_report(self, info):
            seconds = 1 / info["iterations_per_second"]
            steps.append({"loss": info["train_loss"], "seconds": seconds, "peak_gb": info["peak_memory"]})
            print(f"mlx-lm step {len(steps)}: loss {info['train_loss']:.5f}, {seconds:.2f} s", flush=True)

    optimizer = mlx.optimizers.AdamW(
        settings["learning_rate"],
        betas=settings["betas"],
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
        bias_correction=True,
    )
    arguments = trainer.TrainingArgs(
        batch_size=settings["batch_size"],
        iters=job["steps"],
        steps_per_report=1,
        steps_per_save=10**9,
        max_seq_length=10**6,
        adapter_file=str(out.with_suffix(".safetensors")),
        grad_checkpoint=job["checkpoint"],
    )
    mx.reset_peak_memory()
    start = time.perf_counter()
    trainer.train(model, optimizer, records, None, arguments, iterate_batches=iterate, training_callback=Note())
    write_json(
        out,
        {
            "steps": steps,
            "seconds": time.perf_counter() - start,
            "weights_gb": weights / 1e9,
            "peak_gb": mx.get_peak_memory() / 1e9,
            "process_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        },
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
