"""A fused Needle as a `.cact` file, which the engine of its makers runs: the base's own file, other weights in it."""

import logging
from pathlib import Path

import mlx.core as mx
import numpy as np

from callwright.models.cact import Coded, read_cact, with_matrices
from callwright.models.needle_folder import MODEL_TYPE, arrays, file_names
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import atomic_write, read_json

log = logging.getLogger(__name__)

BITS = 4  # as the makers' own exporter writes all matrices


def write_cact(folder: str | Path, source: str | Path | None, path: str | Path) -> dict[str, float]:
    """Write the fused model in `folder` to the file `path`; returns the relative error of each matrix written anew.

    source: the folder with the `.cact` file that the base was converted from. Matrices that are plain weights in
    `folder` are written in 4-bit codes, all else is that file's, bit for bit. The heads beside the answers are left
    out: they were trained for other weights, and the engine then says that it has no confidence.

    Raises CallwrightError for a model that is no Needle or does not fit the file, and for weights that have no place
    of their own in it.
    """
    folder, path = Path(folder), Path(path)
    config = read_json(folder / "config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise CallwrightError(
            f"{folder}: a model of type {config.get('model_type')!r} cannot be exported as a .cact file (known type: "
            f"{MODEL_TYPE}); take `cact` out of package.exports"
        )
    files = sorted(Path(source).glob("*.cact")) if source is not None else []
    if len(files) != 1:
        raise CallwrightError(
            f"the model source {source} has {len(files) or 'no'} .cact file{'s' if files else ''}, but `cact` in "
            "package.exports changes the one that the base came from: take it out, or let model.source name the file"
        )
    weights = plain_weights(folder, file_names(config))
    try:
        data = with_matrices(files[0].read_bytes(), weights, BITS, heads=False)
    except ValueError as error:
        raise CallwrightError(f"{folder} was not converted from {files[0]}: {error}") from error
    with atomic_write(path) as stream:
        stream.write(data)
    errors = relative_errors(path, weights)
    log.info(
        "written as %s, %.1f MB: %d matrices in %d bits, off by %.1f %% (root mean square), all else as in %s",
        path.name, len(data) / 1e6, len(errors), BITS, 100 * np.sqrt(np.mean(np.square(list(errors.values()) or [0]))),
        files[0].name,
    )  # fmt: skip
    return errors


def plain_weights(folder: Path, names: dict[str, str]) -> dict[str, np.ndarray]:
    """The matrices in float32 that are plain weights in `folder` and codes in the file, by their names in the file."""
    found = {}
    for name, array in arrays(folder).items():
        module, _, kind = name.rpartition(".")
        if kind != "weight" or array.ndim != 2:
            continue
        if module not in names:
            raise CallwrightError(
                f"{folder}: the weights of {module} were tuned, but a .cact file has them together with other layers' "
                "in one matrix of codes, so `cact` in package.exports cannot be made: leave that layer out of "
                "training.lora.projections"
            )
        found[names[module]] = np.array(array.astype(mx.float32))
    return found


def relative_errors(path: Path, weights: dict[str, np.ndarray]) -> dict[str, float]:
    """How far the file's matrices are from `weights`: the length of the difference over that of the weights."""
    written = read_cact(path)
    found = {}
    for name, weight in weights.items():
        tensor = written.tensors[name]
        array = tensor.weights(written.codebooks) if isinstance(tensor, Coded) else tensor
        found[name] = float(np.linalg.norm(array - weight) / np.linalg.norm(weight))
    return found
