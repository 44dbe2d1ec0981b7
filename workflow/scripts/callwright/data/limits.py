"""`data.max_tokens: auto`: how long an example may be where the configuration leaves that to the data."""

import json
from pathlib import Path
from typing import Any

RECORDS = 512  # tokens of an example from files of records: what is longer costs more than it teaches a small model
MOST = 4096  # tokens of an example from a toolset, whose tools make it as long as it is


def resolved(settings: dict[str, Any], model_folder: str | Path) -> dict[str, Any]:
    """The settings with a number for `data.max_tokens`.

    `auto` takes all that a toolset makes, as far as the model's context goes, since its tools are served with each
    request too; examples from files end at `RECORDS`.
    """
    data = settings["data"]
    if data["max_tokens"] != "auto":
        return settings
    limit = RECORDS
    if data["source"] == "toolset":
        config = json.loads(Path(model_folder, "config.json").read_text(encoding="utf-8"))
        limit = min(MOST, config.get("max_position_embeddings") or MOST)
    return {**settings, "data": {**data, "max_tokens": limit}}
