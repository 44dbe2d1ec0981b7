"""The base models that `callwright new` offers for own tools, and how much each is trained."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Base:
    """A base model for own tools: what a run's configuration is laid over, and how little it needs to learn.

    config: the model's configuration, for one that is not the default. general: an adapter that calls tools already.
    iterations: for up to four tools, and for more. share: of examples for other tools.
    """

    config: str
    general: str
    iterations: tuple[int, int]
    batch_size: int
    validate_every: int
    share: float


ENCODER = "adapters/tool-encoder"  # which tool a request is about (`evals.tool_encoder`), for all of them

BASES = {
    "smollm2": Base("", "adapters/smollm2-135m", (60, 60), 8, 30, 0.35),
    "qwen2.5-coder": Base("config/qwen2.5-coder-0.5b.yaml", "adapters/qwen2.5-coder-0.5b", (40, 40), 12, 20, 0.35),
}


def train_command(config: str, base: Base) -> str:
    """The command that trains what a run's configuration says."""
    return f"snakemake --cores 1 --configfile {' '.join(map(shlex.quote, filter(None, [base.config, config])))}"
