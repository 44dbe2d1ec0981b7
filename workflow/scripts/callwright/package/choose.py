"""The precision of each layer that an adapter touched: the lightest that keeps what the adapter does."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

# Puts a layer at the given bits into the model that is measured; None: as the adapter alone makes it.
Install = Callable[[str, int | None], None]


@dataclass
class PrecisionChoice:
    """`bits` by layer, the `kl` measured with them, and by bits the KL with all touched layers at these (`uniform`)."""

    bits: dict[str, int]
    kl: float
    uniform: dict[int, float]
    damage: dict[str, float]


def choose(
    groups: Mapping[str, Sequence[str]],
    ladder: Sequence[int],
    install: Install,
    measure: Callable[[], float],
    most: float,
) -> PrecisionChoice:
    """The lightest bits for the layers of each group at which `measure` is at most `most`.

    groups: layers that are decided together, by name. ladder: the bits that may be taken, lightest first.

    All layers at one step of the ladder, then: below the lightest step that is good enough, each group alone is
    tried one step lower, and the groups that suffer least are lowered together, as many as the limit allows.
    Where even the heaviest step is above `most`, it is taken.
    """
    layers = [layer for names in groups.values() for layer in names]

    def measured(bits: Mapping[str, int]) -> float:
        for layer in layers:
            install(layer, bits[layer])
        return measure()

    uniform = {}
    for bits in ladder:
        uniform[bits] = measured(dict.fromkeys(layers, bits))
        log.info("all %d touched layers at %d bits: KL %.5f", len(layers), bits, uniform[bits])
    step = next((n for n, bits in enumerate(ladder) if uniform[bits] <= most), len(ladder) - 1)
    chosen = PrecisionChoice(dict.fromkeys(layers, ladder[step]), uniform[ladder[step]], uniform, {})
    if step == 0 or len(groups) == 1 or chosen.kl > most:
        return chosen

    lower = ladder[step - 1]
    for name, own in groups.items():
        for layer in layers:
            install(layer, None)
        for layer in own:
            install(layer, lower)
        chosen.damage[name] = measure()
    order = sorted(groups, key=lambda name: chosen.damage[name] / len(groups[name]))
    few, many = 0, len(order)  # so many lowered is good enough; so many is not
    while many - few > 1:
        count = (few + many) // 2
        bits = dict.fromkeys(layers, ladder[step])
        bits |= {layer: lower for name in order[:count] for layer in groups[name]}
        kl = measured(bits)
        log.info("%d of %d groups at %d bits, the others at %d: KL %.5f", count, len(order), lower, ladder[step], kl)
        if kl <= most:
            few, chosen.bits, chosen.kl = count, bits, kl
        else:
            many = count
    return chosen
