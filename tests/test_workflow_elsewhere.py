"""Started in another folder, Snakemake says in one line where it is to be started."""

import subprocess
import sys


def dry_run(root, folder):
    command = [sys.executable, "-m", "snakemake", "-n", "-s", str(root / "Snakefile")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_folder_without_a_configuration(root, tmp_path):
    folder = tmp_path / 'it\'s "mine" alone'
    folder.mkdir()
    ended = dry_run(root, folder)
    assert ended.returncode != 0
    assert (
        f"there is no config/config.yaml in {folder}: start Snakemake in {root}, or with -d {root}"
        in ended.stdout + ended.stderr
    )


def test_a_folder_with_the_configuration_of_something_else(root, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("samples: [a, b]\n")
    ended = dry_run(root, tmp_path)
    assert ended.returncode != 0
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("config key samples is not known")
    assert f"that of {tmp_path}, where Snakemake was started" in last
    assert last.endswith(f"-d {root}")
