"""An adapter fused into its model, at the lightest precision of each touched layer that keeps what it does.

Rounding a fused weight to 4 bits can undo the adapter: its update may be smaller than the steps of the grid. So
the fused model is compared with the model that carries the adapter, on held-out examples, before it is written:
by the next-token distributions along the expected answers (mean KL divergence, as a share of what the adapter
itself changed), and by the greedy answers.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.utils
from mlx.utils import tree_flatten, tree_unflatten

from callwright.lora import layers
from callwright.models.convert import count
from callwright.models.folders import fresh_folder, hashes, share_model_files
from callwright.models.load import load, open_model, to_float32
from callwright.models.needle_folder import HEADS_FILE, is_needle, put_module, with_weights
from callwright.package.choose import PrecisionChoice, choose
from callwright.package.compare import Answers, Distance, answer
from callwright.package.precision import Precision, at_bits, own_precision, packed, unpacked
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json

log = logging.getLogger(__name__)

BITS = (4, 8, 16)


def fuse(
    model_folder: str | Path,
    adapter: str | Path,
    examples: Sequence[Any],
    settings: dict[str, Any],
    style: str,
    out_folder: str | Path,
) -> dict[str, Any]:
    """Write `out_folder`, the model with `adapter` fused in, as mlx-lm opens it; returns the report on it.

    examples: held-out ones, the first `settings["items"]` of them are used. settings: the config's `package`
    (`bits`, `items`, `tolerance`, `agreement`, `margin`). style: how the expected answers are written.

    The choice by KL divergence is tried first; where fewer answers than `agreement` have the same calls, or accuracy
    drops by more than `margin`, all touched layers get the next more bits, and the next.

    All is computed on float32 weights, what is written included: those of the fused model are what its folder
    dequantizes to, which is checked bit for bit after it was written. The folder appears complete or not at all.

    Raises CallwrightError when the fused model answers fewer of the examples correctly than the model with the
    adapter, by more than `settings["margin"]`, with the most bits that `settings["bits"]` allows.
    """
    fusion = Fusion(model_folder, adapter, examples[: settings["items"]], style)
    ladder = fusion.ladder(settings["bits"])
    before = fusion.answers()
    log.info("with the adapter %.1f %% of %d items right", 100 * before.accuracy, len(before.right))
    effect = fusion.effect()
    log.info("the adapter's effect: KL %.4f on %d answer tokens", effect, fusion.distance.positions)
    found = choose(fusion.groups, ladder, fusion.install, fusion.distance.measure, settings["tolerance"] * effect)

    tried = []
    for choice in [found, *heavier(found, ladder)]:
        fusion.install_all(choice.bits)
        after = fusion.answers()
        tried.append(
            {
                "bits": described(choice.bits),
                "kl": choice.kl,
                "accuracy": after.accuracy,
                "agreement": after.agreement(before),
            }
        )
        log.info(
            "fused at %s bits: KL %.5f, %.1f %% right, the same calls for %.1f %%",
            described(choice.bits), choice.kl, 100 * after.accuracy, 100 * tried[-1]["agreement"],
        )  # fmt: skip
        kept = before.accuracy - after.accuracy <= settings["margin"]
        if kept and tried[-1]["agreement"] >= settings["agreement"]:
            break
    if not kept:
        raise CallwrightError(
            f"fusing {adapter} loses too much: {100 * before.accuracy:.1f} % of {len(before.right)} held-out items "
            f"are right with the adapter, {100 * after.accuracy:.1f} % in the fused model "
            f"({', '.join(entry['bits'] for entry in tried)} bits tried), and config key package.margin allows "
            f"{settings['margin']}: allow more, ask more items (package.items), or use the adapter unfused"
        )
    fusion.write(choice.bits, out_folder)
    return report(fusion, settings, found, choice, before, after, effect, tried, out_folder)


class Fusion:
    """The model with its adapter merged in float32, whose touched layers can be replaced by their packed forms."""

    def __init__(self, model_folder: str | Path, adapter: str | Path, examples: Sequence[Any], style: str):
        if not examples:
            raise CallwrightError("the validation set has no example to compare the fused model on")
        self.folder, self.examples, self.style = Path(model_folder), examples, style
        self.packed, self.coded = open_model(self.folder), is_needle(self.folder)
        self.model, self.tokenizer = load(self.folder, dequantize=True)
        layers.load_adapter(self.model, adapter)
        self.model.eval()
        self.touched = [path for path, _ in layers.lowrank_layers(self.model)]
        layers.merge(self.model)
        modules, bases = dict(self.model.named_modules()), dict(self.packed.named_modules())
        self.plain = {path: modules[path] for path in self.touched}
        self.base = {path: bases[path] for path in self.touched}
        self.made: dict[tuple[str, int], nn.Module] = {}
        self.merged = {path: layer.weight for path, layer in self.plain.items()}
        self.groups, first = self._groups()
        self.distance = Distance(self.model, self.tokenizer, examples, style, first)

    def _groups(self) -> tuple[dict[str, list[str]], int]:
        """The touched layers by block, those outside by themselves; and the first block that can differ."""
        places = {id(layer): n for n, block in enumerate(self.model.layers) for layer in block.modules()}
        groups: dict[str, list[str]] = {}
        first = len(self.model.layers)
        for path, layer in self.plain.items():
            block = places.get(id(layer))
            groups.setdefault(path if block is None else f"block {block}", []).append(path)
            if not path.endswith("lm_head"):  # which stands after the blocks
                first = min(first, block or 0)
        return groups, first

    def ladder(self, wanted: str | int) -> list[int]:
        """The bits to try, lightest first; `auto`: none below those that the base model has most often.

        Needle's codes are none of MLX's forms: what was touched there has 16 bits.
        """
        if self.coded:
            return [16]
        if wanted != "auto":
            return [int(wanted)]
        own = [own_precision(layer).bits for layer in self.base.values()]
        usual = max(set(own), key=own.count)
        return [usual, *(bits for bits in BITS if bits > usual)] if usual < 16 else [16]

    def layer(self, path: str, bits: int) -> nn.Module:
        """The packed layer at `bits`, or at the bits that the base model has it in, if these are more."""
        if (path, bits) not in self.made:
            base = self.base[path]
            precision = Precision(16) if self.coded else at_bits(base, max(bits, own_precision(base).bits))
            self.made[path, bits] = packed(base, self.merged[path], precision)
        return self.made[path, bits]

    def install(self, path: str, bits: int | None) -> None:
        """Put what `layer` stands for into the model that computes; None: the merged weight in float32."""
        self.plain[path].weight = self.merged[path] if bits is None else unpacked(self.layer(path, bits))
        mx.eval(self.plain[path].weight)

    def install_all(self, bits: dict[str, int]) -> None:
        """`install` for every touched layer."""
        for path in self.touched:
            self.install(path, bits[path])

    def effect(self) -> float:
        """The KL divergence of the base model from the model with the adapter: what the adapter does."""
        for path in self.touched:
            self.plain[path].weight = unpacked(self.base[path])
        found = self.distance.measure()
        for path in self.touched:
            self.install(path, None)
        return found

    def answers(self) -> Answers:
        """Greedy answers to the examples, with the layers as they are installed."""
        return answer(self.model, self.tokenizer, self.examples, self.style)

    def write(self, bits: dict[str, int], folder: str | Path) -> None:
        """Write the model with the layers of `bits`; what was read back equals what is installed, bit for bit."""
        chosen = {path: self.layer(path, bits[path]) for path in self.touched}
        self.packed.update_modules(tree_unflatten(list(chosen.items())))
        config = read_json(self.folder / "config.json")
        if table := quantization(config.get("quantization"), chosen):
            config["quantization"] = table
        if "quantization_config" in config:  # the hub's name for the same table
            config["quantization_config"] = table
        with fresh_folder(folder) as filling:
            share_model_files(self.folder, filling)
            for old in (*filling.glob("*.safetensors"), *filling.glob("*.safetensors.index.json")):
                old.unlink()
            (filling / "model.json").unlink(missing_ok=True)
            if self.coded:
                weights = with_weights(self.folder, {path: layer.weight for path, layer in chosen.items()})
                layers.save_arrays(filling / "model.safetensors", weights)
                put_module(filling)
            else:
                mlx_lm.utils.save_model(filling, self.packed)
            (filling / "config.json").unlink()  # shared with the base model's folder: a new file, not an edit
            write_json(filling / "config.json", config)
            self.check(filling)
            base = read_json(self.folder / "model.json") if (self.folder / "model.json").is_file() else {}
            lost = {"left_out": found} if (found := left_out(self.folder)) else {}
            write_json(filling / "model.json", {**base, **count(filling), **lost, "files": hashes(filling)})

    def check(self, folder: Path) -> None:
        """Raise CallwrightError unless the model in `folder` has the very weights that were measured."""
        written = open_model(folder)
        to_float32(written)
        found = dict(tree_flatten(written.parameters()))
        for name, expected in tree_flatten(self.model.parameters()):
            if name not in found or not mx.array_equal(found.pop(name), expected).item():
                raise CallwrightError(f"the fused model was not written as it was measured: {name} differs")


def quantization(table: dict[str, Any] | None, chosen: dict[str, nn.Module]) -> dict[str, Any] | None:
    """The table `quantization` of the base model with the entries of the fused layers; None where nothing is quantized.

    mlx-lm takes a layer's own entry before the common settings, and false for one that is not quantized.
    """
    if table is None:
        return None
    table = {name: value for name, value in table.items() if name not in chosen}
    common = Precision(table["bits"], table["group_size"], table.get("mode", "affine"))
    for path, layer in chosen.items():
        precision = own_precision(layer)
        if precision != common:
            table[path] = precision.entry()
    return table


def left_out(folder: str | Path) -> list[str]:
    """The files of the model in `folder` that do not hold for its fused weights: Needle's heads beside the answers.

    They read the hidden states of the published weights: a confidence, for instance, which other weights belie.
    """
    return [HEADS_FILE] if (Path(folder) / HEADS_FILE).is_file() else []


def heavier(found: PrecisionChoice, ladder: Sequence[int]) -> list[PrecisionChoice]:
    """All touched layers at each step of the ladder that is heavier than `found`."""
    return [
        replace(found, bits=dict.fromkeys(found.bits, bits), kl=found.uniform[bits])
        for bits in ladder
        if bits > min(found.bits.values())
    ]


def described(bits: dict[str, int]) -> str:
    """`4`, or `4 (70 layers) and 8 (42)`."""
    counts = sorted(Counter(bits.values()).items())
    if len(counts) == 1:
        return str(counts[0][0])
    return " and ".join(f"{bits} ({number} layers)" for bits, number in counts)


def report(
    fusion: Fusion,
    settings: dict[str, Any],
    found: PrecisionChoice,
    choice: PrecisionChoice,
    before: Answers,
    after: Answers,
    effect: float,
    tried: list[dict[str, Any]],
    folder: str | Path,
) -> dict[str, Any]:
    """The content of `fused.json`."""
    n = len(before.right)
    return {
        "items": n,
        "adapter_calls": before.calls,
        "accuracy": {"adapter": before.accuracy, "fused": after.accuracy, "margin": settings["margin"]},
        "agreement": {
            "calls": after.agreement(before),
            "texts": sum(a == b for a, b in zip(after.texts, before.texts, strict=True)) / n,
        },
        "kl": {
            "answer_tokens": fusion.distance.positions,
            "adapter_to_base": effect,
            "adapter_to_fused": choice.kl,
            "limit": settings["tolerance"] * effect,
            "all_layers_at": {str(bits): kl for bits, kl in found.uniform.items()},
            "one_group_lower": found.damage,
        },
        "tried": tried,
        "bits": {path: own_precision(fusion.layer(path, bits)).bits for path, bits in choice.bits.items()},
        "left_out": left_out(fusion.folder),
        "model_file": read_json(fusion.folder / "config.json").get("model_file"),
        "size_bytes": {"base": weight_bytes(fusion.folder), "fused": weight_bytes(folder)},
    }


def weight_bytes(folder: str | Path) -> int:
    """The size of a model's weights on the disk."""
    return sum(path.stat().st_size for path in Path(folder).glob("model*.safetensors"))
