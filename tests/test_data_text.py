"""Damaged text and languages: what is said of a text, and where nothing is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwright.data.text import KNOWN, damage, languages


@pytest.mark.parametrize(
    "text",
    [
        "Weather in Zürich?",
        "Größe: 5 µm²",
        "Fahrt nach Łódź und São Paulo",
        "naïve café – “quoted” …",
        "東京の天気",
        "🗽 5 €\n\tok",
    ],
)
def test_sound_text_is_not_damaged(text):
    assert damage(text) is None


@pytest.mark.parametrize("codec", ["cp1252", "latin-1"])
@pytest.mark.parametrize("text", ["Zürich", "São Paulo", "it’s", "5 €", "Łódź"])
def test_utf8_read_as_something_else_is_found(text, codec):
    try:
        broken = text.encode().decode(codec)
    except UnicodeDecodeError:
        pytest.skip("this codec refuses these bytes")
    assert damage(f"Weather in {broken} now")


def test_what_is_wrong_is_said():
    assert damage("Weather in ZÃ¼rich") == "'Ã¼' in 'Weather in ZÃ¼rich' looks like 'ü' decoded wrongly"
    assert damage("a\x00b") == "the control character U+0000 stands in 'a\\x00b'"
    assert damage("to \u202egnol") == "the control character U+202E stands in 'to \\u202egnol'"
    assert damage("Z\ufffdrich") == "a replacement character stands in 'Z�rich'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the weather in Rome?", ("en",)),
        ("Wie ist das Wetter in Rom, und ist es kalt?", ("de",)),
        ("Quel temps fait-il dans la ville de Rome ? Donne une prévision pour moi", ("fr",)),
        ("¿Cuál es el tiempo para mañana en Roma, por favor?", ("es",)),
        ("Che tempo fa nella città? Dammi le previsioni per domani, non di oggi", ("it",)),
        ("Какая погода в Риме?", ("ru", "uk", "bg", "sr")),
        ("東京の天気は?", ("ja",)),
        ("明天北京天气怎么样", ("zh", "ja")),
        ("로마 날씨 알려줘", ("ko",)),
        ("Fetch AAPL prices", ()),
        ("12345 !!", ()),
        ("", ()),
    ],
)
def test_languages_by_script_and_common_words(text, expected):
    assert languages(text) == expected
    assert set(expected) <= set(KNOWN)


@given(st.text())
def test_any_text_has_an_answer(text):
    assert damage(text) is None or isinstance(damage(text), str)
    assert set(languages(text)) <= set(KNOWN)
