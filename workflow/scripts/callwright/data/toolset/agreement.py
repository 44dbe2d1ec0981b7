"""Numbers agree with their nouns: "1 day", "one night", "one person"; not "1 days"."""

import re

IRREGULAR = {"people": "person", "persons": "person", "children": "child", "men": "man", "women": "woman",
             "feet": "foot", "mice": "mouse", "teeth": "tooth", "knives": "knife", "lives": "life"}  # fmt: skip
# Words in s that are no plural, or name the same for one and many.
SINGULAR = {"is", "as", "was", "has", "does", "this", "its", "plus", "minus", "bus", "gas", "series", "species", "us",
            "yes", "thus", "perhaps", "always", "news", "less", "means", "times", "lens"}  # fmt: skip
_ONE = re.compile(r"(?<![\w.,:/-])(1|one|One)( +)([a-z]+)\b(?![-'’])")


def agree(text: str) -> str:
    """The text with the singular after a lone 1 or "one"; numbers within codes, times and decimals are none."""
    return _ONE.sub(lambda match: match.group(1) + match.group(2) + singular(match.group(3)), text)


def singular(noun: str) -> str:
    """The singular of a plural noun; any other word as it is."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun in SINGULAR or not noun.endswith("s") or noun.endswith(("ss", "us", "is")) or len(noun) < 4:
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if re.search(r"(x|ch|sh|ss|z)es$", noun):
        return noun[:-2]
    return noun[:-1]
