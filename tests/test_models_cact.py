"""Needle's weight file: what is read is what was written; what cannot be read is refused in one line."""

import numpy as np
import pytest
from fixtures_needle import MARKERS, SIZES, write_cact
from transformers import AutoTokenizer

from callwright.models.cact import Coded, read_cact, walsh
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
