"""A sweep of four points on a Slurm of one node that is started for it, two of them cut off (`make check-slurm`).

    python benchmarks/check_slurm.py

Four trainings of a tiny random model are computed twice: one after the other by Snakemake alone, and as the whole sweep
through `profiles/slurm`, with the account and the partition replaced as docs/cluster.md says. There, one training
is cancelled (`scancel`, as at a time limit) and one is killed (`kill -9`, as by a lack of memory) once a snapshot is
written. Both must be submitted again, go on from their snapshot, and end with the very bytes of the undisturbed run.

Needs Debian's slurm-wlm and munge and the plugin snakemake-executor-plugin-slurm; installs nothing. Results, logs and
the table lie in results/check-slurm.
"""

import contextlib
import importlib.metadata
import importlib.util
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import slurm_node
import yaml

from callwright.runtime.files import sha256_file, write_json, write_jsonl

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "check-slurm"
PLUGIN = "snakemake-executor-plugin-slurm"
RANKS, SEEDS = (2, 4), (1, 2)
POINTS = [f"tiny.rank-{rank}.seed-{seed}" for rank in RANKS for seed in SEEDS]
CUT_OFF = {POINTS[0]: "scancel", POINTS[3]: "kill -9"}
# Long enough to be met in the middle, short enough for one core.
STEPS, SNAPSHOT_EVERY = 600, 200
CONFIG = {
    "runs": ["tiny"],
    "sweep": {"grid": {"training.lora.rank": list(RANKS), "training.seed": list(SEEDS)}},
    "model": {"name": "tiny-gemma", "source": {"kind": "folder", "path": "gemma"}},
    "data": {"source": "xlam", "path": "rows.jsonl", "examples": 30, "max_tokens": 2000},
    "split": {"unseen_tools": 0},
    "training": {
        "iterations": STEPS,
        "batch_size": 4,
        "snapshot_every": SNAPSHOT_EVERY,
        "validate_every": STEPS // 2,
        "share_prefix": "off",
        "lora": {"layers": 2, "projections": ["q_proj", "v_proj"]},
    },
    "evaluation": {"suites": ["test_seen"], "items": 2, "max_output_tokens": 96},
    # Two jobs run at once.
    "device": {"cpu_threads": 1},
}
# Beside account and partition: without slurmdbd, `sacct` knows nothing; and nobody wants to wait 40 s for each job.
PROFILE = "\nslurm-status-command: squeue\nslurm-init-seconds-before-status-checks: 3\n"


def main() -> None:
    absent = slurm_node.missing()
    plugin = importlib.util.find_spec(PLUGIN.replace("-", "_"))
    if absent or not plugin:
        sys.exit(needed(absent, bool(plugin)))
    # Whoever ends this process ends all that it started; a shell's background jobs would let Snakemake ignore Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shutil.rmtree(OUT, ignore_errors=True)
    checkout(OUT / "slurm")
    shutil.copytree(OUT / "slurm", OUT / "alone")
    print("four trainings alone ...", flush=True)
    alone = timed(trainings_alone)
    # The path of a socket is short: not in a checkout that may lie deep.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        try:
            with slurm_node.running(Path(folder)) as environment:
                print("the sweep through Slurm ...", flush=True)
                slurm = timed(lambda: sweep(environment))
                jobs = slurm_node.jobs(environment)
                versions = {"slurm": slurm_node.say(environment, "sinfo", "--version").split()[-1]}
        finally:
            for log in Path(folder).glob("*.out"):
                shutil.copy(log, OUT / f"{log.stem}.log")
    rows = [look_at(point, jobs) for point in POINTS]
    finished = (OUT / "slurm" / "results" / "tiny" / "sweep.json").exists()
    versions |= {name: importlib.metadata.version(name) for name in ("snakemake", PLUGIN)}
    seconds = {"alone": alone, "slurm": slurm}
    text = table(rows, jobs, seconds, finished) + "\n" + ", ".join(f"{name} {versions[name]}" for name in versions)
    found = {"points": rows, "jobs": jobs, "seconds": seconds, "finished": finished, "versions": versions}
    write_json(OUT / "found.json", found)
    (OUT / "found.txt").write_text(text + "\n")
    print(text)
    sys.exit(0 if finished and all(row["good"] for row in rows) else 1)


def needed(absent: list[str], plugin: bool) -> str:
    """One line: what to install."""
    wanted = ["`apt install slurm-wlm munge`"] if absent else []
    wanted += [] if plugin else [f'`.venv/bin/pip install "{PLUGIN}==2.8.*"`']
    lacking = [*absent, *([] if plugin else [PLUGIN])]
    return f"check-slurm lacks {', '.join(lacking)}: {' and '.join(wanted)} would bring it"


def profile(text: str) -> str:
    """`profiles/slurm/profile.yaml` as a user of this cluster would change it."""
    for own in ("my-account", "my-partition"):
        if own not in text:
            raise ValueError(f"profiles/slurm/profile.yaml names no {own} any more")
        text = text.replace(own, slurm_node.NAME)
    return text + PROFILE


def checkout(folder: Path) -> None:
    """A copy of what the workflow needs, with the changed profile, a tiny model, records, and the sweep's config."""
    sys.path.insert(0, str(ROOT / "tests"))
    from fixtures_gemma import make_gemma
    from fixtures_workflow import xlam_rows

    for name in ("rules", "profiles", "workflow", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder / name)
    path = folder / "profiles" / "slurm" / "profile.yaml"
    path.write_text(profile(path.read_text()))
    make_gemma(folder / "gemma")
    write_jsonl(folder / "rows.jsonl", xlam_rows(40))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(CONFIG))


@contextlib.contextmanager
def snakemake(name: str, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """Snakemake in one of the two checkouts, its output in a file beside it; it ends with the block."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", "config/smoke.yaml", "sweep.yaml"]
    with open(OUT / f"{name}.log", "wb") as log:
        process = subprocess.Popen(command, cwd=OUT / name, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def trainings_alone() -> None:
    """The four trainings without Slurm, undisturbed."""
    with snakemake("alone", "--cores", "1", *(f"results/{point}/adapter" for point in POINTS)) as process:
        if process.wait():
            sys.exit(f"the trainings failed without Slurm already: {OUT / 'alone.log'}")


def sweep(environment: dict[str, str]) -> None:
    """The whole sweep through Slurm; each training of `CUT_OFF` is ended once it has written a snapshot."""
    left = dict(CUT_OFF)
    with snakemake("slurm", "--workflow-profile", "slurm", environment=environment) as process:
        while process.poll() is None:
            for point, how in list(left.items()):
                if cut_off(point, how, environment):
                    print(f"  {point}: {how}", flush=True)
                    del left[point]
            time.sleep(0.1)


def cut_off(point: str, how: str, environment: dict[str, str]) -> bool:
    """End the point's training where it has a snapshot; whether it was ended."""
    state = OUT / "slurm" / "results" / point / "state"
    if not (state / "snapshot.safetensors").exists():
        return False
    running = [number for number, status, _ in trainings(point, slurm_node.jobs(environment)) if status == "RUNNING"]
    if not running:
        return False
    if how == "scancel":
        subprocess.run(["scancel", *running], env=environment, check=True)
        return True
    try:
        process = psutil.Process(int((state / "lock").read_text()))
        if str(OUT) not in " ".join(process.cmdline()):  # another program has the number by now
            return False
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def trainings(point: str, jobs: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The jobs of the point's training."""
    return [job for job in jobs if job[2] == f"rule_train_wildcards_{point}"]


def look_at(point: str, jobs: list[tuple[str, str, str]]) -> dict[str, Any]:
    """What became of a point, and whether that is what it should be."""
    submitted = trainings(point, jobs)
    states = [state for _, state, _ in submitted]
    log = OUT / "slurm" / "results" / point / "training" / "train.log"
    step = resumed_from(log.read_text(encoding="utf-8")) if log.exists() else 0
    adapters = [OUT / name / "results" / point / "adapter" / "adapters.safetensors" for name in ("alone", "slurm")]
    hashes = [sha256_file(path) if path.exists() else "" for path in adapters]
    same = hashes[0] == hashes[1] != ""
    expected = ["CANCELLED" if CUT_OFF[point] == "scancel" else "FAILED"] if point in CUT_OFF else []
    good = same and states == [*expected, "COMPLETED"] and (0 < step < STEPS if expected else step == 0)
    return {
        "point": point,
        "cut_off": CUT_OFF.get(point, ""),
        "jobs": [f"{number} {state}" for number, state, _ in submitted],
        "resumed_from": step,
        "sha256": hashes[1],
        "same": same,
        "good": good,
    }


def resumed_from(log: str) -> int:
    """The step whose snapshot a training went on from, by its log; 0 when it began anew."""
    found = re.search(r"continuing from the snapshot of step (\d+)", log)
    return int(found[1]) if found else 0


def table(rows: list[dict[str, Any]], jobs: list[Any], seconds: dict[str, float], finished: bool) -> str:
    """What was seen, as text."""
    lines = [f"{'point':22}{'cut off by':12}{'jobs of its training':32}{'went on from':14}adapter"]
    for row in rows:
        step = f"step {row['resumed_from']}" if row["resumed_from"] else ""
        adapter = f"{'same bytes' if row['same'] else 'OTHER BYTES'} {row['sha256'][:8]}" if row["sha256"] else "none"
        verdict = "" if row["good"] else "  NOT AS EXPECTED"
        lines.append(f"{row['point']:22}{row['cut_off']:12}{', '.join(row['jobs']):32}{step:14}{adapter}{verdict}")
    lines.append(
        f"{len(jobs)} jobs, the sweep's table {'written' if finished else 'MISSING'}; "
        f"the sweep through Slurm {seconds['slurm']:.0f} s, four trainings alone {seconds['alone']:.0f} s"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
