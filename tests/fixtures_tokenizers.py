"""Independent readers of a GGUF's tokenizer, through the `gguf` package, and a sample of texts for them."""

import unicodedata
from functools import cache
from itertools import pairwise

import gguf
import regex

SPECIAL = (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)


class ReferenceTokenizer:
    """Byte-level BPE from scratch, reading the GGUF's tokens and merges through the `gguf` package.

    (transformers' own GGUF tokenizer conversion needs PyTorch.) Texts are cut into words as llama.cpp does it for the
    cut's name. A byte without a token is left out, as in llama.cpp.
    """

    GPT2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    QWEN2 = regex.compile(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )

    def __init__(self, reader: gguf.GGUFReader):
        tokens = reader.get_field("tokenizer.ggml.tokens").contents()
        types = reader.get_field("tokenizer.ggml.token_type").contents()
        merges = reader.get_field("tokenizer.ggml.merges").contents()
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        special = [token for token, kind in zip(tokens, types, strict=True) if kind in SPECIAL]
        self.special = regex.compile("(" + "|".join(map(regex.escape, sorted(special, key=len, reverse=True))) + ")")
        visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = [byte for byte in range(256) if byte not in visible]
        self.letters = {byte: chr(byte) for byte in visible}
        self.letters |= {byte: chr(256 + number) for number, byte in enumerate(hidden)}
        self.word = cache(self.word)
        self.cut = reader.get_field("tokenizer.ggml.pre").contents()

    def word(self, word: str) -> list[int]:
        parts = [self.letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            rank, at = min((self.ranks.get(pair, len(self.ranks)), at) for at, pair in enumerate(pairwise(parts)))
            if rank == len(self.ranks):
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.ids[part] for part in parts if part in self.ids]

    def words(self, text: str) -> list[str]:
        if self.cut == "qwen2":  # whose own tokenizer composes letters and accents first
            return self.QWEN2.findall(unicodedata.normalize("NFC", text))
        return [word for part in regex.findall(r"\p{N}|\P{N}+", text) for word in self.GPT2.findall(part)]

    def encode(self, text: str) -> list[int]:
        ids = []
        for number, piece in enumerate(self.special.split(text)):
            ids += [self.ids[piece]] if number % 2 else [i for word in self.words(piece) for i in self.word(word)]
        return ids


class SentencePieceReference:
    """SentencePiece's BPE from scratch: of all neighbours whose union is a token, those of the best score are joined.

    The leftmost of equal ones; spaces are `▁`; a character without a token becomes its bytes. User-defined tokens are
    cut out first, the longest one that begins at a place.
    """

    def __init__(self, reader: gguf.GGUFReader):
        tokens = reader.get_field("tokenizer.ggml.tokens").contents()
        types = reader.get_field("tokenizer.ggml.token_type").contents()
        scores = reader.get_field("tokenizer.ggml.scores").contents()
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.scores = dict(zip(tokens, scores, strict=True))
        special = [token for token, kind in zip(tokens, types, strict=True) if kind in SPECIAL]
        self.special = regex.compile("(" + "|".join(map(regex.escape, sorted(special, key=len, reverse=True))) + ")")

    def piece(self, text: str) -> list[int]:
        parts = list(text.replace(" ", "▁"))
        while len(parts) > 1:
            unions = [(-self.scores[a + b], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in self.scores]
            if not unions:
                break
            _, at = min(unions)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        found = []
        for part in parts:
            found += [self.ids[part]] if part in self.ids else [self.ids[f"<0x{byte:02X}>"] for byte in part.encode()]
        return found

    def encode(self, text: str) -> list[int]:
        ids = []
        for number, piece in enumerate(self.special.split(text)):
            ids += [self.ids[piece]] if number % 2 else self.piece(piece)
        return ids


SAMPLE = [
    "",
    " ",
    "Hello, world!",
    "It's we're I'll they'd DON'T can't o'clock",
    "  two spaces, three   spaces, trailing  ",
    "tabs\tand\n\nnew lines\r\n \n  indented\n",
    "0 12 345 6789 3.14159 -1e-10 2024-02-29T23:59:59Z 0x1F ½ ² Ⅷ ٣٤",
    "Zürich, São Paulo, naïve café, Straße, Ελλάδα, Москва, 東京都, 서울, العربية, עברית, हिन्दी, ไทย",
    "👍🏽 👨‍👩‍👧‍👦 🇫🇷 🏳️‍🌈 ❤️ ½ ™ — “quotes” … ﬁ \u200b\u00a0\u2003\ufeff",
    '{"name": "get_weather", "arguments": {"city": "Paris", "days": [1, 2, 3], "exact": true, "note": null}}',
    '{"a":{"b":[{"c":"d\\n\\"e\\""}]},"x":-0.5}',
    "<tool_call>\n{}\n</tool_call>\n<tool_response>\n[]\n</tool_response>",
    "def f(x: int) -> str:\n    return f'{x!r:>10}'  # comment\n\nif __name__ == '__main__':\n\tprint(f(3))\n",
    "SELECT * FROM t WHERE a<>b AND c!=d; -- ok\n/* x */ #include <stdio.h> && || ++i; $PATH ~/bin",
    "https://example.org/a?b=c&d=%20e#f user@example.com C:\\Users\\x",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<|im_end|><|endoftext|>",
    "text<|im_end|>text <|im_end|> <|im_end <repo_name>x<filename>y<empty_output>",
    "antidisestablishmentarianism Llanfairpwllgwyngyll aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\x00\x01\x06\x7f \x85 \u2028 \U0001f9ff \U000e0041",
    "e\u0301 é A\u030a Å ﷺ",
]

PIECES = [*SAMPLE, *"aZ09 \n\t.,'\"{}[]<>|_-é中😀", "  ", "\r\n", "<|im_start|>", "<|im_end|>", "Ġ", "½", "'ll"]
