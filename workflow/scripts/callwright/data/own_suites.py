"""The suites that a user's own requests make: kept-back `examples` of the toolset, and held-back corrections."""

import re
from pathlib import Path
from typing import Any

from callwright.data import corrections
from callwright.runtime.errors import CallwrightError

EXAMPLES, CORRECTIONS = "test_examples", "test_corrections"


def add_own_suites(run: dict[str, Any]) -> None:
    """Add to a run's configuration the suites of its own requests, where there are any.

    Kept-back examples come first and are the headline: `evaluation.primary.suite`, unless the configuration names
    another than the default one. A suite that the configuration lists itself must have items: raises CallwrightError.
    """
    evaluation = run["evaluation"]
    suites, aim = list(evaluation["suites"]), evaluation["primary"]
    examples, held_back = kept_examples(run), kept_corrections(run)
    for name, count, what in (
        (EXAMPLES, examples, "the toolset has no `examples` of which one is kept back"),
        (CORRECTIONS, held_back, "none of the corrections is held back"),
    ):
        if name in suites and not count:
            raise CallwrightError(f"config key evaluation.suites has `{name}`, but {what}: leave it out")
    if examples and EXAMPLES not in suites:
        suites.insert(0, EXAMPLES)
    if held_back and CORRECTIONS not in suites:
        suites.append(CORRECTIONS)
    if examples and aim["suite"] == "test_seen":
        aim = {**aim, "suite": EXAMPLES}
    run["evaluation"] = {**evaluation, "suites": suites, "primary": aim}


def kept_examples(run: dict[str, Any]) -> int:
    """How many of the toolset's `examples` are kept back; the toolset is only read where it has that key."""
    if run["data"]["source"] != "toolset":
        return 0
    if Path(run["toolset"]).is_dir():
        raise CallwrightError(f"config key toolset is {run['toolset']}: that is a folder, expected a file")
    text = Path(run["toolset"]).read_text(encoding="utf-8-sig", errors="replace")
    if not re.search(r"^[\"']?examples[\"']?\s*:(?!\s*\[\s*\])", text, re.M):
        return 0
    from callwright.data.toolset.own_examples import kept_back
    from callwright.data.toolset.toolset import load_toolset

    return kept_back(load_toolset(run["toolset"]))


def kept_corrections(run: dict[str, Any]) -> int:
    """How many of the run's corrections are held back."""
    path = corrections.settings_of(run)["path"]
    return len(corrections.read(path).kept_back) if path else 0
