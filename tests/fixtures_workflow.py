"""A checkout of the repository, the smoke run in it, and Snakemake as a user starts it."""

import os
import shutil
import subprocess
import sys

import pytest

SMOKE = ["--configfile", "config/smoke.yaml"]


def snakemake(folder, *arguments, check=True, **environment):
    """Run Snakemake in `folder` as a user would; returns the completed process with both outputs as one text."""
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=folder, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, check=False,
    )  # fmt: skip
    if check:
        assert result.returncode == 0, result.stdout[-5000:]
    return result


@pytest.fixture(scope="session")
def checkout(root, tmp_path_factory):
    """A copy of the repository's own files, without results."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ["Snakefile", "rules", "profiles", "workflow", "config", "environment.yml"]:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def run_in(checkout, *arguments):
    """The checkout after a run of the workflow, whose output is kept there."""
    result = snakemake(checkout, *arguments)
    (checkout / "console.txt").write_text(result.stdout)
    return checkout


@pytest.fixture(scope="session")
def finished(checkout):
    """The checkout after the smoke run."""
    return run_in(checkout, *SMOKE)


def xlam_rows(count):
    """Records in xLAM's format, no two alike."""
    for number in range(count):
        tool = {
            "name": f"get_{number % 7}",
            "description": f"Look up value {number % 7}.",
            "parameters": {"key": {"type": "str", "description": "The key"}, "limit": {"type": "int, optional"}},
        }
        key = f"k{number * 7919 % 1000}"
        call = {"name": tool["name"], "arguments": {"key": key}}
        yield {"query": f"What is value {number % 7} of {key} {'x' * number}?", "tools": [tool], "answers": [call]}
