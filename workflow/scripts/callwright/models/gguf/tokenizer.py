"""A GGUF's tokenizer as `tokenizer.json`.

Two kinds: byte-level BPE, whose merges the file lists and whose cut into words it names (`tokenizer.ggml.pre`), and
SentencePiece's BPE, for which it has a score for each token: there, two neighbours are merged whose union has the
best score of all, so the merges are all splits of all tokens into two others, by the union's score.
"""

from pathlib import Path
from typing import Any

from callwright.models.gguf.reader import GgufFile
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import write_json

# llama.cpp's token types (gguf.TokenType). A control token never comes out of ordinary text; a user-defined one is
# cut out of it before anything else is.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
END_KEYS = ("eos", "eot", "eom")  # of `tokenizer.ggml.<key>_token_id`
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
SPACE = "▁"

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES_ALONE = {**BYTE_LEVEL, "use_regex": False}


def _split(expression: str) -> dict[str, Any]:
    cut = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, BYTES_ALONE]}


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = _split(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}")
LLAMA3 = _split(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}")
# How text is cut before byte-level BPE, by `tokenizer.ggml.pre`. GPT-2's own cut is part of ByteLevel.
PRE_TOKENIZERS = {
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]},
    "gpt-2": BYTE_LEVEL,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
}
NORMALIZED = ("qwen2", "deepseek-r1-qwen")  # to Unicode's composed form first, as the original tokenizer does
WHOLE_WORDS_FIRST = ("llama-bpe", "llama3", "llama-v3")  # a word that is a token is not put together by merges


def end_ids(file: GgufFile) -> list[int]:
    """The tokens that end a turn or a text, the first being the file's `eos`."""
    ids = [file.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in END_KEYS]
    found = list(dict.fromkeys(token for token in ids if token is not None))
    if not found:
        raise CallwrightError(f"{file.path} names no token that ends a text (tokenizer.ggml.eos_token_id)")
    return found


def write_tokenizer(folder: Path, file: GgufFile) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` to `folder`.

    Raises CallwrightError for another tokenizer than byte-level BPE with a known cut, and SentencePiece's BPE.
    """
    metadata = file.metadata
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind == "gpt2":
        if pre not in PRE_TOKENIZERS:
            raise CallwrightError(
                f"{file.path}: tokenizer.ggml.pre is {pre!r}, expected one of {', '.join(PRE_TOKENIZERS)}; "
                "convert the original safetensors with `mlx_lm.convert` and use that folder as the model source"
            )
        parts = byte_level(metadata, pre)
    elif kind == "llama":
        parts = sentence_piece(metadata)
    else:
        raise CallwrightError(
            f"{file.path}: tokenizer.ggml.model is {kind!r}, expected gpt2 (byte-level BPE) or llama (SentencePiece); "
            "convert the original safetensors with `mlx_lm.convert` and use that folder as the model source"
        )
    tokens, types = metadata["tokenizer.ggml.tokens"], token_types(metadata)
    added = [
        {
            "id": number, "content": tokens[number], "special": kind == CONTROL,
            "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        }
        for number, kind in enumerate(types)
        if kind in (CONTROL, USER_DEFINED)
    ]  # fmt: skip
    special = {
        name: tokens[metadata[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in SPECIAL.items()
        if f"tokenizer.ggml.{key}_token_id" in metadata
    }
    adds_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama")) and "bos_token" in special
    write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "post_processor": begin_of_text(special["bos_token"], tokens) if adds_bos else None,
            **parts,
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": adds_bos,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": file.need("context_length"),
            "chat_template": metadata.get("tokenizer.chat_template"),
            **special,
        },
    )


def token_types(metadata: dict[str, Any]) -> list[int]:
    """The tokens' types; all normal where a file does not say."""
    found = metadata.get("tokenizer.ggml.token_type")
    return [NORMAL] * len(metadata["tokenizer.ggml.tokens"]) if found is None else found.tolist()


def begin_of_text(token: str, tokens: list[str]) -> dict[str, Any]:
    """What puts the token `token` before a text."""
    piece = {"SpecialToken": {"id": token, "type_id": 0}}
    text, other = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [piece, text],
        "pair": [piece, text, other],
        "special_tokens": {token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]}},
    }


def byte_level(metadata: dict[str, Any], pre: str) -> dict[str, Any]:
    """Normalizer, cut, decoder and model of a byte-level BPE."""
    return {
        "normalizer": {"type": "NFC"} if pre in NORMALIZED else None,
        "pre_tokenizer": PRE_TOKENIZERS[pre],
        "decoder": BYTE_LEVEL,
        "model": bpe(
            metadata["tokenizer.ggml.tokens"],
            [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
            ignore_merges=pre in WHOLE_WORDS_FIRST,
        ),
    }


def sentence_piece(metadata: dict[str, Any]) -> dict[str, Any]:
    """Normalizer, cut, decoder and model of a SentencePiece BPE with byte fallback."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    prefixed = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    if prefixed:
        replace = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]}
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    tokens, types = metadata["tokenizer.ggml.tokens"], token_types(metadata)
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    return {
        "normalizer": replace,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": back},
        "model": bpe(
            tokens,
            merges_of_scores(tokens, metadata["tokenizer.ggml.scores"].tolist(), types),
            unknown=None if unknown is None else tokens[unknown],
            byte_fallback=True,
        ),
    }


def merges_of_scores(tokens: list[str], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """All pairs of tokens whose union is an ordinary token, by the union's score, best first."""
    ids = {token: number for number, token in enumerate(tokens)}
    found = []
    for number, token in enumerate(tokens):
        if types[number] != NORMAL:
            continue
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [(-scores[number], pair) for pair in pairs]
    found.sort(key=lambda item: item[0])  # stable
    return [pair for _, pair in found]


def bpe(
    tokens: list[str],
    merges: list[Any],
    unknown: str | None = None,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """The `model` of a tokenizer.json."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": byte_fallback,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": merges,
    }
