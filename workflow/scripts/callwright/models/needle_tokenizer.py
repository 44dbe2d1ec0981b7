"""Needle's tokenizer, a byte-pair model of SentencePiece, as a `tokenizer.json` of Hugging Face's `tokenizers`.

SentencePiece joins the neighbouring pair whose piece has the best score, the leftmost of equals; `tokenizers` the pair
whose merge stands first in a list. Each piece that two pieces make is such a merge, ordered by the piece's score.
"""

from pathlib import Path
from typing import Any

from callwright.chat.call_format import REASONS
from callwright.runtime.files import write_json

PIECE, UNKNOWN, CONTROL, MARKER, BYTE = range(5)
BLANK = "▁"
TURN_EDGES = ("<|im_start|>", "<|im_end|>")


def write_tokenizer(folder: str | Path, tokenizer: dict[str, Any], context: int, template: str) -> None:
    """`tokenizer.json` and `tokenizer_config.json` of what `cact.read_pieces` gives.

    context: the longest prompt, in tokens. template: the chat template.
    """
    folder = Path(folder)
    pieces, types = tokenizer["pieces"], tokenizer["types"]
    write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": number, "content": pieces[number], "special": kind != MARKER or pieces[number] in TURN_EDGES,
                    "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                }
                for number, kind in enumerate(types)
                if kind in (UNKNOWN, CONTROL, MARKER)
            ],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": BLANK},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                ],
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": pieces[tokenizer["unk"]],
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": tokenizer["byte_fallback"],
                "ignore_merges": False,
                "vocab": {piece: number for number, piece in enumerate(pieces)},
                "merges": merges(pieces, types, tokenizer["scores"]),
            },
        },
    )  # fmt: skip
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": False,  # the chat template writes it
            "add_prefix_space": tokenizer["blank_first"],
            "clean_up_tokenization_spaces": False,
            "model_max_length": context,
            "chat_template": template,
            REASONS: True,
            "bos_token": pieces[tokenizer["bos"]],
            "eos_token": TURN_EDGES[1],
            "unk_token": pieces[tokenizer["unk"]],
            "pad_token": pieces[tokenizer["pad"]],
        },
    )


def merges(pieces: list[str], types: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """Every way in which two pieces make a third, those with the best score first."""
    usable = {piece: scores[number] for number, piece in enumerate(pieces) if types[number] == PIECE}
    found = []
    for piece, score in usable.items():
        found += [
            (-score, cut, piece[:cut], piece[cut:])
            for cut in range(1, len(piece))
            if piece[:cut] in usable and piece[cut:] in usable
        ]
    return [(left, right) for _, _, left, right in sorted(found)]
