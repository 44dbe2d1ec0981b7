"""The package: adapter, fused model, card, and what other programs load."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from callwright.evals.threshold import DECISION
from callwright.evals.tool_encoder import FILE as ENCODER
from callwright.models.folders import fresh_folder, share
from callwright.package.cact_file import write_cact
from callwright.package.export import to_huggingface
from callwright.package.gguf_file import write_gguf
from callwright.package.ollama import write_modelfile


def pack(
    adapter: str | Path,
    fused: str | Path,
    card: str,
    settings: Mapping[str, Any],
    folder: str | Path,
    name: str,
    decision: str | Path | None = None,
    source: str | Path | None = None,
    encoder: str | Path | None = None,
    check: Callable[[Path], Any] | None = None,
) -> None:
    """Fill `folder` with `adapter/`, `model/` and `README.md`; it appears complete or not at all.

    adapter: in mlx-lm's layout. fused: the fused model. card: the text of README.md. decision: when the model should
    call (`evals.threshold`), which goes beside the weights of both. settings: the config's `package`; `exports` adds
    `safetensors/` (Hugging Face layout, not quantized), `<name>.gguf` with an Ollama `Modelfile`, and `<name>.cact` for
    Needle's engine. source: the folder that the base was converted from, which only the last needs. encoder: the tool
    encoder of the decision. check: is given the GGUF file, which it may refuse (`gguf_check`).

    Files are hard links where the file system has them. Raises CallwrightError for an export that cannot be made.
    """
    exports = settings["exports"]
    with fresh_folder(folder) as filling:
        for made, target in ((Path(adapter), filling / "adapter"), (Path(fused), filling / "model")):
            target.mkdir()
            for path in sorted(made.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    share(path, target / path.name)
            for path, there in ((decision, DECISION), (encoder, ENCODER)):
                if path is not None:
                    share(Path(path), target / there)
        (filling / "README.md").write_text(card, encoding="utf-8")
        if "safetensors" in exports:
            to_huggingface(fused, filling / "safetensors", settings["dtype"])
        if "gguf" in exports:
            write_gguf(fused, filling / f"{name}.gguf", settings["gguf_type"], name)
            if check is not None:
                check(filling / f"{name}.gguf")
            write_modelfile(fused, filling, f"{name}.gguf")
        if "cact" in exports:
            write_cact(fused, source, filling / f"{name}.cact")
