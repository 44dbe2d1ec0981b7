"""Folders written whole or not at all, and files shared instead of copied."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file

# What belongs to a model: weights, configuration, tokenizer, templates, license and card. Patterns of `fnmatch`.
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt", "*.gguf", "LICENSE*", "README.md")
# What mlx, mlx-lm and transformers raise for files that are missing, broken or of an unknown kind.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)


@contextlib.contextmanager
def fresh_folder(folder: str | Path) -> Iterator[Path]:
    """A temporary sibling to fill; on success it becomes `folder` (replacing it), on an error it is removed.

    A full disk becomes a CallwrightError that names the folder.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except (OSError, RuntimeError) as error:
        # MLX says RuntimeError("[write] Unable to write …") where Python says ENOSPC.
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "Unable to write" in str(error):
            raise CallwrightError(
                f"no space left on the disk while writing {folder}: free some and run again; nothing half-written stays"
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def share(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link, or a copy where the file system refuses one.

    Links save the second copy of the weights; nothing in this project writes into an existing file.
    """
    source = source.resolve()  # the hub's cache is made of symbolic links
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def share_model_files(source: Path, target: Path) -> None:
    """Share the files of the model folder `source` (not of its subfolders) with the folder `target`."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith(".") and any(path.match(pattern) for pattern in MODEL_FILES):
            share(path, target / path.name)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder`, by name."""
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()}


def first_line(error: Exception) -> str:
    """What kind of error it was and the first line of its message; libraries write whole lists of weights."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
