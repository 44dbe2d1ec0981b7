"""Are the files of weights whole? Told from their heads, before anything is converted or loaded."""

import json
import os
import re
from pathlib import Path
from typing import Any

from callwright.runtime.errors import CallwrightError

POINTER = b"version https://git-lfs"
MOST_HEAD = 100 * 2**20  # bytes; the safetensors library's own limit
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")


def check_folder(folder: str | Path) -> None:
    """Raise CallwrightError, in one line that names the file, when a shard is missing or a file is not whole.

    Looks at `model*.safetensors` and the index beside them; a folder without such files is another check's.
    """
    folder = Path(folder)
    there = sorted(path.name for path in folder.glob("model*.safetensors"))
    wanted: set[str] = set()
    for index in sorted(folder.glob("model*.safetensors.index.json")):
        try:
            wanted |= set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CallwrightError(f"{index} is no index of weights: it has no `weight_map`; fetch it again") from error
    if not wanted:
        for name in there:
            if found := _SHARD.fullmatch(name):
                stem, _, count = found.groups()
                wanted |= {
                    f"{stem}-{number:0{len(count)}}-of-{count}.safetensors" for number in range(1, int(count) + 1)
                }
    if missing := sorted(name for name in wanted if not (folder / name).is_file()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CallwrightError(
            f"{folder / missing[0]}{more} is missing: the model's weights are {len(wanted)} files; fetch all of them"
        )
    for name in there:
        check_file(folder / name)


def check_file(path: str | Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name, as its head has them; raises CallwrightError unless it is whole."""
    path = Path(path)
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        start = stream.read(len(POINTER))
        if start == POINTER:
            raise CallwrightError(f"{path} is a pointer of Git LFS, not the weights: run `git lfs pull` in its folder")
        length = int.from_bytes(start[:8], "little")
        if size < 8 or length > MOST_HEAD or start[8:9] not in (b"{", b""):
            raise CallwrightError(f"{path} is no safetensors file: it begins with {start[:16]!r}; fetch it again")
        stream.seek(8)
        head = stream.read(length)
    try:
        tensors = json.loads(head) if len(head) == length else None
        ends = [tensor["data_offsets"][1] for name, tensor in (tensors or {}).items() if name != "__metadata__"]
        end = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CallwrightError(f"{path} is no safetensors file: its head cannot be read; fetch it again") from error
    if size < end:
        raise CallwrightError(f"{path} is cut: it has {size} of {end} bytes; fetch it again")
    return {name: tensor for name, tensor in tensors.items() if name != "__metadata__"}
