"""Free answers that stand under a grammar and a threshold too, so that nobody has to give them again.

Under a grammar greedy decoding takes the likeliest of the tokens that are allowed, and a threshold decides at one token
alone. Where every token of a free answer is allowed, the answer may end where it does, and it makes calls or none as
the threshold has it, it is the same model's answer under both, token for token.
"""

from collections.abc import Sequence
from typing import Any

from callwright.decoding.constrain import Constraint
from callwright.decoding.decision import CallToken
from callwright.decoding.name_preference import NamePreference

ROUNDED = 1e-6  # stored probabilities have six digits: so near to the threshold nobody knows on which side one was


def stands(
    row: dict[str, Any],
    ids: Sequence[int],
    constraint: Constraint,
    token: CallToken | None = None,
    threshold: float | None = None,
    preference: NamePreference | None = None,
) -> bool:
    """Whether a free answer is what would be said.

    row: the stored answer; ids: its text's tokens. constraint: fresh, it is used up. token, threshold: where answers
    decide to call, and from which probability on; None where nothing but the model decides. preference: what weighs the
    tools' names.
    """
    # Written in other tokens: their number differs, or some were no whole character.
    if row["output_tokens"] != len(ids) or "\ufffd" in row["text"]:
        return False
    if threshold is not None and not decided_alike(row, ids, token, threshold):
        return False
    if preference is not None and any(preference.due(ids[:n]) for n in range(len(ids))):
        return False
    return all(constraint.accept(one) for one in ids) and (constraint.complete or row["finish_reason"] == "length")


def decided_alike(row: dict[str, Any], ids: Sequence[int], token: CallToken | None, threshold: float) -> bool:
    """Whether an answer makes calls, or none, as a threshold would have it; True where it never came to decide."""
    if token is None:
        return True
    if token.after is None:
        at = 0
    elif token.after in ids:
        at = ids.index(token.after) + 1
    else:
        return True
    probability = row.get("call_probability")
    if probability is None or abs(probability - threshold) <= ROUNDED:
        return False
    return (list(ids[at : at + 1]) == [token.token]) == (probability > threshold)
