"""Whether a GGUF export answers as the adapter does: the file is read back, tokenizer and template too, and asked."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from callwright.models.convert import convert
from callwright.models.folders import share
from callwright.models.load import load
from callwright.package.compare import Answers, answer
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)


def check_gguf(
    path: Path, fused: Mapping[str, Any], examples: Sequence[Any], settings: Mapping[str, Any], style: str
) -> Answers:
    """Ask the model in the file `path` what the fused model was asked; returns its answers.

    fused: `fused.json`, which has the adapter's calls. examples: those that it was made with. settings: the config's
    `package`. The file is converted beside itself, which takes its size once more while it is asked.

    Raises CallwrightError where fewer answers are right than with the adapter, by more than `settings["margin"]`.
    """
    examples = examples[: fused["items"]]
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        source, folder = Path(scratch) / "source", Path(scratch) / "mlx"
        source.mkdir()
        share(path, source / path.name)
        convert(source, {}, folder)
        model, tokenizer = load(folder, dequantize=True)
        model.eval()
        found = answer(model, tokenizer, examples, style)
    before, n = fused["accuracy"]["adapter"], len(examples)
    same = sum(mine == theirs for mine, theirs in zip(found.calls, fused["adapter_calls"], strict=True))
    log.info(
        "%s: %.1f %% of %d items right (adapter: %.1f %%), the same calls for %.1f %%",
        path.name, 100 * found.accuracy, n, 100 * before, 100 * same / n,
    )  # fmt: skip
    if before - found.accuracy > settings["margin"]:
        raise CallwrightError(
            f"the export {path.name} loses too much: {100 * before:.1f} % of {n} held-out items are right with the "
            f"adapter, {100 * found.accuracy:.1f} % in the file read back, and config key package.margin allows "
            f"{settings['margin']}: take a finer package.gguf_type than {settings['gguf_type']}, allow more, or ask "
            "more items (package.items)"
        )
    return found
