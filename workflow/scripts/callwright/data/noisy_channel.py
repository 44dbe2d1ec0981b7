"""Requests from tools: the other direction, by which a model says which tool somebody means.

Asked directly, a small model takes the tool whose name or position it likes. Asked how likely a request is from
somebody who wants a tool, for each of the tools, it must explain every word of the request, and says better what is
meant: the noisy channel of Min et al., "Noisy Channel Language Model Prompting for Few-Shot Text Classification" (ACL
2022, https://arxiv.org/abs/2108.04106). A prefix shows a tool and how others have asked for it; a request follows.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from callwright.data.records import Example
from callwright.data.split import MIXED

WEIGHT = 1.0  # of a nat of the channel beside one of the model's own choice of a tool
WEIGHT_OF_TWO = 0.5  # beside a tool encoder
SAMPLES = 4  # requests of others that a prefix shows
LONGEST = 200  # characters of each
PHRASING = "phrasing:"


def prefix(function: dict[str, Any], samples: Sequence[str] = ()) -> str:
    """What a request for a tool (the `function` of its OpenAI object) follows: the tool, and how others asked."""
    name = function["name"].replace("_", " ").replace(".", " ")
    shown = "".join(f'- "{sample[:LONGEST]}"\n' for sample in samples)
    return f'What a customer can ask for: {name}: {function.get("description") or name}\nCustomers write:\n{shown}- "'


def wordings(examples: Iterable[Example]) -> dict[str, dict[str, list[Example]]]:
    """Examples that want one tool, by that tool and by the wording they use (their own text, where none is known)."""
    found: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        if len(example.calls) != 1 or len(example.messages) != 1:
            continue
        known = [tag.removeprefix(PHRASING) for tag in example.tags if tag.startswith(PHRASING)]
        wording = known[0] if len(known) == 1 else example.asked
        found[example.calls[0]["name"]][wording].append(example)
    return found


def sample(by_wording: Mapping[str, list[Example]], rng: random.Random) -> list[str]:
    """Up to SAMPLES different requests for a tool, in as many wordings as there are."""
    order = rng.sample(sorted(by_wording), len(by_wording))
    found: dict[str, None] = {}
    for wording in (order * SAMPLES)[: SAMPLES * 4]:
        if len(found) < SAMPLES:
            found[rng.choice(by_wording[wording]).asked] = None
    return list(found)


def settings_for(examples: Iterable[Example], seed: int, beside_encoder: bool = False) -> dict[str, Any]:
    """What a server needs to ask the channel: `weight`, and `samples` of requests for each of the run's own tools."""
    weight = WEIGHT_OF_TWO if beside_encoder else WEIGHT
    rng = random.Random(f"{seed}/samples")
    found = wordings(example for example in examples if not any(tag.startswith(MIXED) for tag in example.tags))
    return {"weight": weight, "samples": {name: sample(found[name], rng) for name in sorted(found)}}
