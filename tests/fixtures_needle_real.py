"""The published Needle 3, its own JAX code and its own engine, from the wheel that holds all three."""

import importlib
import os
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "needle"


def source() -> dict[str, str]:
    """`model.source` of config/needle3.yaml."""
    return yaml.safe_load((ROOT / "config" / "needle3.yaml").read_text())["model"]["source"]


@pytest.fixture(scope="session")
def needle_wheel() -> Path:
    """The unpacked wheel, downloaded once and kept in .cache/needle/wheel."""
    from callwright.models.fetch import checked_wheel
    from callwright.models.folders import fresh_folder
    from callwright.runtime.errors import CallwrightError

    folder = CACHE / "wheel"
    if not folder.exists():
        try:
            with fresh_folder(folder) as filling, zipfile.ZipFile(checked_wheel(source(), filling)) as archive:
                archive.extractall(filling)
        except CallwrightError as error:
            pytest.skip(f"the wheel with Needle 3 is not here and cannot be downloaded: {error}")
    return folder


@pytest.fixture(scope="session")
def needle_folder(needle_wheel: Path) -> Path:
    """The converted model."""
    from callwright.models.convert import convert

    folder = CACHE / "source"
    folder.mkdir(exist_ok=True)
    for path in [needle_wheel / source()["member"], *needle_wheel.glob("*.dist-info/LICENSE")]:
        if not (folder / path.name).exists():
            os.link(path, folder / path.name)
    convert(folder, {**source(), "license": "Apache-2.0"}, CACHE / "model")
    return CACHE / "model"


@pytest.fixture(scope="session")
def needle_package(needle_wheel: Path) -> ModuleType:
    """The wheel's Python package; it counts nothing."""
    os.environ["NEEDLE_TELEMETRY"] = "0"
    sys.path.insert(0, str(needle_wheel))
    return importlib.import_module("needle")


@pytest.fixture(scope="session")
def needle_jax(needle_package: ModuleType):
    """(the wheel's JAX model in float32, its parameters from the wheel's file): they need `jax` and `flax`."""
    for name in ("jax", "flax"):
        pytest.importorskip(name, reason=f"comparing with Needle's own code needs {name}: pip install jax flax")
    return reference(needle_package)


def reference(package: ModuleType):
    """Put the file's tensors, in their order, into the tree of parameters that the JAX code has."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    architecture = importlib.import_module("needle.model.architecture")
    export = importlib.import_module("needle.model.export")
    header, tensors = export.read_export(Path(package.__file__).with_name("needle3.cact"))
    config = architecture.TransformerConfig(**header, dtype="float32", remat=False)
    following = iter(tensors).__next__
    tree = {"embedding": {"embedding": following()}}
    layers = []
    for _ in range(config.num_layers):
        layer = {name: following() for name in ("norm", "q_proj", "k_proj", "v_proj", "q_taps", "k_taps", "v_taps")}
        layer |= {name: following() for name in ("q_norm", "k_norm", "gate_proj", "out_proj", "post", "gate", "pre")}
        mlp = ("d1", "d2", "b2", "d3", "d4", "w1a", "w1b", "w2a", "w2b", "w3a", "w3b", "cond_v", "cond_u")
        layers.append(layer | {name: following() for name in mlp})
    stacked = {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}
    attention = {
        f"{kind}_proj": {"kernel": stacked[f"{kind}_proj"].swapaxes(1, 2)} for kind in ("q", "k", "v", "gate", "out")
    }
    attention |= {f"{kind}_taps": stacked[f"{kind}_taps"] for kind in "qkv"}
    attention |= {f"{kind}_norm": {"scale": stacked[f"{kind}_norm"]} for kind in "qk"}
    block = {
        "ZCRMSNorm_0": {"scale": stacked["norm"]},
        "post_attn_norm": {"scale": stacked["post"]},
        "pre_hada_norm": {"scale": stacked["pre"]},
        "attn_gate": stacked["gate"][:, 0],
        "self_attn": attention,
        "hadamard_mlp": {name: stacked[name] for name in mlp},
    }
    stack = {"layers": {"block": block}}
    stack |= {f"mhc_{kind}": following() for kind in ("a_pre", "a_post", "a_res", "b_pre", "b_post", "b_res")}
    for kind in ("phi_pre", "phi_post", "phi_res"):
        rows = following()
        stack[f"mhc_{kind}"] = rows.reshape(config.num_layers, -1, rows.shape[1]).swapaxes(1, 2)
    for _ in range(2):
        following()  # the permutations, which the code draws anew
    for site in range(len(config.engram_layers)):
        tables, key, value, taps = (following() for _ in range(4))
        tree[f"engrams_{site}"] = {
            "embedding": tables.reshape(-1, config.engram_slots, tables.shape[1]),
            "key_proj": {"kernel": key.T},
            "value_proj": {"kernel": value.T},
            "taps": taps,
        }
    tree["stack"] = {**stack, "final_norm": {"scale": following()}}
    return architecture.SimpleAttentionNetwork(config), jax.tree.map(jnp.asarray, tree)
