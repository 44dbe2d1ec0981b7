"""Do the sets of a split share anything? Asked of their content, not of how they were made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from callsmith.data.records import Example, normalize
from callsmith.runtime.errors import CallsmithError


def audit(sets: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Check that no id and no request occurs in two sets, and that no other set lists a tool of test_unseen_tools.

    Returns counts for the report: `shared_ids`, `shared_requests` and `shared_unseen_tools` (all 0), and the
    number of tools by set. Raises CallsmithError that names an example of what is shared.
    """
    owners: dict[str, dict[str, str]] = {"id": {}, "request": {}}
    for name, examples in sets.items():
        ids = Counter(example.id for example in examples)
        if double := next((key for key, count in ids.items() if count > 1), None):
            raise CallsmithError(f"the id {double!r} stands in {name} twice: ids must be unique")
        for example in examples:
            for what, key in (("id", example.id), ("request", normalize(example.query))):
                owner = owners[what].setdefault(key, name)
                if owner != name:
                    raise CallsmithError(
                        f"the {what} of example {example.id!r} is in {owner} and in {name}: {key[:80]!r}"
                    )
    tools = {name: {tool for example in examples for tool in example.tool_names} for name, examples in sets.items()}
    unseen = tools.get("test_unseen_tools", set())
    for name, known in tools.items():
        if name != "test_unseen_tools" and (shared := sorted(unseen & known)):
            raise CallsmithError(f"{name} lists the held-out tool {shared[0]!r}")
    return {
        "shared_ids": 0,
        "shared_requests": 0,
        "shared_unseen_tools": 0,
        "tools": {name: len(known) for name, known in tools.items()},
    }
