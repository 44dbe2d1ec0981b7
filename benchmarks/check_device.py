"""Does all of it work on this machine's device, and as on a CPU? A Markdown table says so (`make check-device`).

    python benchmarks/check_device.py                        the default model and a tiny Gemma 3, minutes on a CPU
    python benchmarks/check_device.py --models tiny-gemma3   the tiny one alone, seconds
    python benchmarks/check_device.py --store                on a CPU: keep the results that others are compared with

Conversion, training with and without shared beginnings, resuming, greedy answers, fusing and a served call are run
and compared with check_device.json, which was made on a CPU. Exit status 1 where something is further off than LIMITS
allow. Nothing is downloaded but the default model, once, by the workflow's own rule.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from callwright.runtime import device, logs, provenance
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json

STORED = Path(__file__).resolve().with_suffix(".json")
MODELS = ["smollm2-135m-instruct", "tiny-gemma3"]

# What may differ from the stored results. Another CPU takes its sums in another order, in float32 all the same: with
# one thread in place of two, losses were 0.02 % apart. An accelerator computes with packed weights and in half
# precision, in no fixed order: its code in bfloat16 on a CPU had losses 4.4 % apart, 0.4 % before the first step.
#   first             the relative difference of the validation loss before training
#   losses, sharing   the largest one of all losses
#   adapter           that of an adapter after a resumed training, by the 2-norm; 0: the same bytes
#   begin             the share of answers that begin alike
#   lost              the share of the adapter's effect that fusing may lose
LIMITS = {
    "cpu": {"first": 0.001, "losses": 0.01, "sharing": 0.01, "adapter": 0.0, "begin": 0.75, "lost": 0.1},
    "accelerator": {"first": 0.02, "losses": 0.1, "sharing": 0.1, "adapter": 0.05, "begin": 0.5, "lost": 0.1},
}


def judge(step: Any, stored: dict[str, Any], limits: dict[str, float]) -> tuple[str, bool]:
    """What to say of a `device_work.Step` beside its stored results, and whether all are within the limits."""
    if step.failure:
        return f"**failed: {step.failure}**", False
    said, good = [], True
    for what, value in step.found.items():
        text, fine = JUDGES[what](value, stored.get(what), limits)
        said.append(text if fine else f"**{text}**")
        good = good and fine
    return ", ".join(said), good


def _rows(value: str, stored: str, limits: dict[str, float]) -> tuple[str, bool]:
    if value != stored:
        raise CallwrightError(
            f"{STORED.name} is of other examples, another tokenizer or another template: "
            "make it anew on a CPU (`python benchmarks/check_device.py --store`)"
        )
    return "the same tokens", True


def _weights(value: str, stored: str, limits: dict[str, float]) -> tuple[str, bool]:
    return ("the same weights", True) if value == stored else ("other weights", False)


def _losses(value: list[float], stored: list[float], limits: dict[str, float]) -> tuple[str, bool]:
    from device_work import apart

    first, near = _within("{} before the first step", apart(value[:1], stored[:1]), limits["first"])
    text, fine = _within("losses {} apart", apart(value, stored), limits["losses"])
    return f"{text}, {first}", near and fine


def _sharing(value: float, _: Any, limits: dict[str, float]) -> tuple[str, bool]:
    return _within("{} from the shared ones", value, limits["sharing"])


def _adapter(value: float, _: Any, limits: dict[str, float]) -> tuple[str, bool]:
    return ("the same bytes", True) if value == 0 else _within("adapter {} apart", value, limits["adapter"])


def _answers(value: list[list[str]], stored: list[list[str]], limits: dict[str, float]) -> tuple[str, bool]:
    pairs = list(zip(value, stored, strict=True))
    begin, same = (sum(a[part] == b[part] for a, b in pairs) for part in (0, 1))
    return f"{same} of {len(pairs)} the same, {begin} begin alike", begin >= limits["begin"] * len(pairs)


def _lost(value: float, _: Any, limits: dict[str, float]) -> tuple[str, bool]:
    return _within("{} of the effect lost", value, limits["lost"])


def _within(text: str, value: float, limit: float) -> tuple[str, bool]:
    said = f"{100 * value:.2f} %"
    return f"{text.format(said)} (limit {100 * limit:g} %)", value <= limit  # not a number is not within


JUDGES = {
    "rows": _rows,
    "weights": _weights,
    "losses": _losses,
    "sharing": _sharing,
    "adapter": _adapter,
    "answers": _answers,
    "lost": _lost,
}


def about() -> dict[str, Any]:
    """This machine and the versions that decide."""
    versions = provenance.versions()
    return {**device.describe(), **{name: versions[name] for name in ("python", "mlx", "mlx-lm")}}


def described(found: dict[str, Any]) -> str:
    """`about` on one line."""
    place = (
        f"{found['device']} ({found['system']} {found['machine']}, {found['cores']} cores, {found['memory_gb']:.0f} GB)"
    )
    return f"{place}, Python {found['python']}, MLX {found['mlx']}, mlx-lm {found['mlx-lm']}"


def main(arguments: list[str] | None = None) -> int:
    """Run the steps, compare, print the table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--device", choices=["auto", "gpu", "cpu"], default="auto")
    parser.add_argument("--cpu-threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--store", action="store_true", help="keep this CPU's results for others to be compared with")
    given = parser.parse_args(arguments)
    logs.setup()
    device.configure(given.cpu_threads, given.device)  # before anything imports MLX
    import device_work

    if given.store and not device.on_cpu():
        raise CallwrightError("the results to compare with come from a CPU: add `--device cpu`")
    stored = read_json(STORED) if STORED.exists() else {"models": {}}
    limits = LIMITS["cpu" if device.on_cpu() else "accelerator"]
    begun, rows, good = time.monotonic(), [], True
    for model in given.models:
        expected = {} if given.store else stored["models"][model]
        with tempfile.TemporaryDirectory(prefix="callwright-check-") as scratch:
            for step in device_work.Check(model, Path(scratch), given.device, given.cpu_threads).steps():
                if given.store:
                    expected[step.name] = step.found
                said, fine = judge(step, expected[step.name], limits)
                good = good and fine
                cost = map(number, (step.seconds, step.tokens_per_second, step.peak_gb))
                rows.append([f"{model}: {step.name}", *cost, said])
        stored["models"][model] = expected
    if given.store:
        stored["about"] = about()
        if good:
            write_json(STORED, stored)
    seconds, beside = number(time.monotonic() - begun), f"compared with {described(stored['about'])}"
    rows.append([f"all, on {time.strftime('%Y-%m-%d')}", seconds, "", "", beside])
    print(table([described(about()), "seconds", "tokens/s", "peak GB", "agreement"], rows))
    return 0 if good else 1


def number(value: float | None) -> str:
    """Three digits, or nothing."""
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CallwrightError as error:
        sys.exit(f"error: {error}")
