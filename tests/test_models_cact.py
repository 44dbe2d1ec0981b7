"""Needle's weight file: what is read is what was written; a file with other matrices keeps all else, bit for bit."""

import struct

import numpy as np
import pytest
from fixtures_needle import CODEBOOKS, MARKERS, SIZES, write_cact
from fixtures_needle import walsh as plain_walsh
from transformers import AutoTokenizer

from callwright.models.cact import STRESS, Coded, encoded, read_cact, walsh, with_matrices
from callwright.models.needle_folder import convert_cact
from callwright.runtime.errors import CallwrightError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(path of a small file, its values by name)."""
    path = tmp_path_factory.mktemp("cact") / "small.cact"
    return path, write_cact(path)


def test_every_tensor_is_read_under_its_name_exactly(written):
    path, values = written
    found = read_cact(path)
    assert list(found.tensors) == list(values)
    for name, expected in values.items():
        tensor = found.tensors[name]
        array = tensor.weights(found.codebooks) if isinstance(tensor, Coded) else tensor
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-6 * np.abs(expected).max(), err_msg=name)


def test_the_sizes_of_the_architecture_are_read(written):
    sizes = read_cact(written[0]).sizes
    assert (sizes["width"], sizes["lanes"], sizes["window"]) == (SIZES["width"], SIZES["lanes"], SIZES["window"])
    assert sizes["global_layers"] == list(SIZES["global_layers"])
    assert sizes["memory_layers"] == list(SIZES["memory_layers"])
    assert sizes["memory_orders"] == list(SIZES["orders"])
    assert sizes["rope_theta"] == SIZES["theta"]


def test_the_walsh_hadamard_matrix_is_its_own_inverse():
    np.testing.assert_allclose(walsh(128) @ walsh(128), np.eye(128), atol=1e-6)


def test_the_tokenizer_joins_the_best_pair_first_and_the_leftmost_of_equals(written, tmp_path):
    convert_cact(written[0], tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    def pieces(text: str) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))

    assert pieces("abcd") == ["abc", "d"]  # "ab" was made before "cd", then "abc"
    assert pieces("a abc") == ["a", "▁", "abc"]
    assert pieces("aaaa") == ["aa", "aa"]
    assert pieces("é") == ["<0xC3>", "<0xA9>"]
    assert pieces("<tools>a</tools>") == ["<tools>", "a", "</tools>"]
    assert tokenizer.decode(tokenizer.encode("a  é\nb", add_special_tokens=False)) == "a  é\nb"
    assert tokenizer.convert_tokens_to_ids(MARKERS) == list(range(4, 4 + len(MARKERS)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"GGUF" + data[4:], "is not a weight file of Needle 3"),
        (lambda data: data[: len(data) // 2], "is damaged"),
        (lambda data: data[:20], "is damaged"),
        (lambda data: b"", "is damaged"),
    ],
)
def test_other_and_damaged_files_are_refused(written, tmp_path, change, words):
    path = tmp_path / "broken.cact"
    path.write_bytes(change(written[0].read_bytes()))
    with pytest.raises(CallwrightError, match=words):
        read_cact(path)


def one_by_one(matrix: np.ndarray, codebook: np.ndarray, steer: np.ndarray | None = None) -> np.ndarray:
    """The matrix [rows, 256] that its codes stand for, one weight after the other, in float64.

    steer: [256, 256], by how much an error in a column (first axis) counts together with one in another. What an error
    costs is then made good, as far as it can be, by the columns after it: the minimum of a quadratic form in these.
    """
    turn = np.kron(np.eye(2), plain_walsh(128))
    out = np.zeros(matrix.shape)
    for row, values in enumerate(matrix @ turn):
        scales = []
        for group in np.split(values, 2):
            length = np.sqrt((group**2).sum())
            units = np.array([min(codebook, key=lambda level: abs(level - x / length)) for x in group], np.float64)
            scales.append(float(np.float16((units @ group) / (units @ units))))
        errors = np.zeros(256)
        for column in range(256):
            wanted = values[column]
            if steer is not None and column:
                left = steer[column:, column:]
                wanted -= np.linalg.solve(left, steer[column:, :column] @ errors[:column])[0]
            scale = scales[column // 128]
            out[row, column] = scale * min(codebook, key=lambda level: abs(level - wanted / scale))
            errors[column] = out[row, column] - values[column]
    return out @ turn


def tuned(rows: int, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a matrix [rows, 256] of four levels, as published ones are; an update of rank 2; its inputs [2, 256])."""
    rng = np.random.default_rng(1)
    levels = CODEBOOKS[2].astype(np.float64)[rng.integers(0, 4, (rows, 2, 128))]
    base = (levels @ plain_walsh(128)).reshape(rows, 256)
    inputs = np.linalg.qr(rng.normal(size=(256, 2)))[0].T
    update = rng.normal(size=(rows, 2)) @ inputs
    return base, update * size * np.linalg.norm(base) / np.linalg.norm(update), inputs


def test_codes_are_those_of_a_search_one_by_one():
    matrix = np.random.default_rng(1).normal(0, 0.3, (2, 256))
    found = encoded(matrix, CODEBOOKS[4], 4, 128)
    assert (found.codes.shape, found.norms.shape, found.codes.dtype) == ((2, 32), (2, 2), np.uint32)
    expected = one_by_one(matrix, CODEBOOKS[4])
    assert 0.01 < np.linalg.norm(expected - matrix) / np.linalg.norm(matrix) < 0.15
    np.testing.assert_allclose(found.weights(CODEBOOKS), expected, atol=1e-5)


def test_steered_codes_are_those_of_a_search_one_by_one():
    base, update, inputs = tuned(3, 0.05)
    turned = np.kron(np.eye(2), plain_walsh(128)) @ inputs.T
    expected = one_by_one(base + update, CODEBOOKS[4], np.eye(256) + STRESS * turned @ turned.T)
    found = encoded(base + update, CODEBOOKS[4], 4, 128, base).weights(CODEBOOKS)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_tuning_survives_rounding_that_is_steered():
    base, update, inputs = tuned(40, 0.03)
    lost = [
        np.linalg.norm((encoded(base + update, CODEBOOKS[4], 4, 128, before).weights(CODEBOOKS) - base - update) @ side)
        / np.linalg.norm(update @ side)
        for side in (inputs.T,)
        for before in (None, base)
    ]
    assert lost[0] > 0.2  # of what the update does
    assert lost[1] < 0.2 * lost[0]


def test_without_a_change_the_codes_are_the_nearest():
    base, _, _ = tuned(3, 0.0)
    plain, steered = (encoded(base, CODEBOOKS[4], 4, 128, before) for before in (None, base))
    np.testing.assert_array_equal(plain.codes, steered.codes)


def test_codes_of_2_bits_come_back_as_they_were(written):
    found = read_cact(written[0])
    for name in ("layer0.q_proj", "memory0.tables"):
        tensor = found.tensors[name]
        again = encoded(tensor.weights(found.codebooks), found.codebooks[2], 2, 128)
        np.testing.assert_array_equal(again.codes, tensor.codes)
        np.testing.assert_allclose(again.norms, tensor.norms, rtol=1e-3)


def test_a_group_of_zeros_stays_one():
    matrix = np.zeros((1, 256), np.float32)
    matrix[0, 128:] = np.random.default_rng(4).normal(size=128)
    found = encoded(matrix, CODEBOOKS[4], 4, 128).weights(CODEBOOKS)
    assert not found[0, :128].any()
    assert np.linalg.norm(found - matrix) < 0.15 * np.linalg.norm(matrix)


def blobs(data: bytes) -> list[tuple]:
    """(kind, shape, bits, bytes) of each tensor, from the directory."""
    count, books = struct.unpack_from("<II", data, 4)
    records = [struct.unpack_from("<BBHIIIIQQII", data, 196 + 4 * books + 44 * n) for n in range(count)]
    assert all(record[7] % 64 == 0 and record[7] + record[8] <= len(data) for record in records)
    return [(r[0], r[3 : 3 + r[1]], r[10], data[r[7] : r[7] + r[8]]) for r in records]


@pytest.mark.slow
def test_a_file_with_other_matrices_keeps_all_else(tmp_path):
    values = write_cact(tmp_path / "small.cact", heads=True)
    data = (tmp_path / "small.cact").read_bytes()
    assert with_matrices(data, {}) == data
    rng = np.random.default_rng(5)
    new = {
        name: values[name] + rng.normal(0, 0.1 * values[name].std(), values[name].shape)
        for name in ("layer1.q_proj", "embedding", "memory0.key_proj")
    }
    (tmp_path / "other.cact").write_bytes(with_matrices(data, new, heads=False))
    found = read_cact(tmp_path / "other.cact")
    names = [name for name in values if not name.startswith(("heads", "confidence_head"))]
    assert list(found.tensors) == names
    before = dict(zip(values, blobs(data), strict=False))
    after = dict(zip(names, blobs((tmp_path / "other.cact").read_bytes()), strict=False))
    for name in names:
        if name not in new:
            assert after[name] == before[name], name
            continue
        kind, shape, bits, blob = after[name]
        assert (kind, shape, bits, len(blob)) == (3, new[name].shape, 4, new[name].size // 2 + new[name].size // 64)
        error = found.tensors[name].weights(found.codebooks) - new[name]
        assert 0 < np.linalg.norm(error) < 0.15 * np.linalg.norm(new[name])
    assert found.tokenizer == read_cact(tmp_path / "small.cact").tokenizer
    assert found.sizes == {**read_cact(tmp_path / "small.cact").sizes, "tensors": len(names) + 1}


def test_heads_stay_where_they_are_wanted(tmp_path):
    values = write_cact(tmp_path / "small.cact", heads=True)
    (tmp_path / "other.cact").write_bytes(
        with_matrices((tmp_path / "small.cact").read_bytes(), {"layer0.k_proj": values["layer0.k_proj"]})
    )
    found = read_cact(tmp_path / "other.cact").tensors
    assert list(found) == list(values)
    np.testing.assert_array_equal(found["confidence_head.gain"], values["confidence_head.gain"])


@pytest.mark.parametrize(
    ("name", "shape"), [("layer9.q_proj", (64, 768)), ("layer0.norm_in", (768,)), ("layer0.q_proj", (64, 767))]
)
def test_a_matrix_that_has_no_place_is_refused(written, name, shape):
    with pytest.raises(ValueError, match=f"no coded matrix {name}"):
        with_matrices(written[0].read_bytes(), {name: np.ones(shape)})
