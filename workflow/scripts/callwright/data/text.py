"""Text that was damaged on its way, and in which language a text is.

Languages are told by script, and those of the Latin script by their commonest words. That is enough to keep a
data set to the languages that it should have; it is no language identification: a text with fewer than two
common words of any known language stays undecided, and what is undecided is not rejected.
"""

import re
import unicodedata
from collections import Counter

# UTF-8 read as Windows-1252 or Latin-1: a first byte as a letter, then continuation bytes as signs.
_CONTINUATION = "[\x80-\xbf" + "".join(
    bytes([byte]).decode("cp1252") for byte in range(0x80, 0xA0) if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
) + "]"  # fmt: skip
_MOJIBAKE = re.compile(f"[\xc2-\xdf]{_CONTINUATION}|[\xe0-\xef]{_CONTINUATION}{{2}}|[\xf0-\xf4]{_CONTINUATION}{{3}}")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]")

# The commonest words that few of the other languages have.
WORDS = {
    "en": "the of to and is in for what can you my me please how this that with on are do from at it i need which",
    "de": "der die das und ist ich nicht ein eine mir für den mit wie zu auf bitte wo welche kann von im dem was",
    "fr": "le les des est et je une dans pour pas qui sur avec quelle quel vous moi du au quels peux mon ma donne",
    "es": "el los las una es y por para con qué cuál cómo del mi quiero puedes lo hay dame necesito sobre dónde",
    "it": "il gli una è e per con che di sono non qual mi della dei come puoi alla nel quali vorrei dammi del",
    "pt": "o os as um uma é e para com que do da não qual meu minha em preciso você por como no na quais",
    "nl": "de het een en is van ik niet voor met op wat hoe kun je mijn zijn naar welke aan kan geef mij te",
    "sv": "och att det är en som på för jag inte med av den till kan vad hur mig ett vilka har om",
    "pl": "i w na się nie jest z do jak to czy dla o mi jaki proszę po ile co chcę mój są",
}
_LANGUAGES_OF = {word: [code for code, words in WORDS.items() if word in words.split()]
                 for words in WORDS.values() for word in words.split()}  # fmt: skip
# Scripts that stand for languages, by the first word of their characters' Unicode names.
SCRIPTS = {
    "CYRILLIC": ("ru", "uk", "bg", "sr"), "GREEK": ("el",), "ARABIC": ("ar", "fa", "ur"), "HEBREW": ("he",),
    "DEVANAGARI": ("hi", "mr"), "BENGALI": ("bn",), "TAMIL": ("ta",), "THAI": ("th",), "HANGUL": ("ko",),
    "HIRAGANA": ("ja",), "KATAKANA": ("ja",), "CJK": ("zh", "ja"),
}  # fmt: skip
KNOWN = sorted({*WORDS, *(code for codes in SCRIPTS.values() for code in codes)})


def damage(text: str) -> str | None:
    """What shows that a text was decoded or cut wrongly, as one sentence; None when nothing does."""
    if text.isascii() and text.isprintable():
        return None
    if match := _CONTROL.search(text):
        return f"the control character U+{ord(match.group()):04X} stands in {_around(text, match.start())}"
    if "\ufffd" in text:
        return f"a replacement character stands in {_around(text, text.index(chr(0xFFFD)))}"
    if match := _MOJIBAKE.search(text):
        for codec in ("cp1252", "latin-1"):
            try:
                meant = match.group().encode(codec).decode("utf-8")
            except UnicodeError:
                continue
            return f"{match.group()!r} in {_around(text, match.start())} looks like {meant!r} decoded wrongly"
    return None


def languages(text: str) -> tuple[str, ...]:
    """The languages that a text may be in (ISO 639-1), the likeliest; empty when it cannot be told."""
    scripts: Counter[str] = Counter()
    for character in text:
        if character.isalpha():
            scripts["LATIN" if character.isascii() else unicodedata.name(character, "?").split(" ")[0]] += 1
    if not scripts:
        return ()
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts["CJK"] and scripts["HIRAGANA"]:
        return ("ja",)
    script = min(scripts, key=lambda name: (-scripts[name], name))
    if script != "LATIN":
        return SCRIPTS.get(script, ())
    found: Counter[str] = Counter()
    for word in re.findall(r"[^\W\d_]+", text.casefold()):
        for code in _LANGUAGES_OF.get(word, ()):
            found[code] += 1
    best = max(found.values(), default=0)
    return tuple(code for code in WORDS if best >= 2 and found[code] == best)


def _around(text: str, at: int) -> str:
    return repr(text[max(0, at - 20) : at + 20])
