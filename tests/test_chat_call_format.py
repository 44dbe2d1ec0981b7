"""A model's own form of calling: found by probes, written by its template, read by mlx-lm's parsers, constrained."""

import json

import pytest
from fixtures_forms import CLOSE, EACH, FORMS, chatml, write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.generate import TextStateMachine, make_text_state_machine
from mlx_lm.server import ToolCallFormatter

from callwright.chat.call_format import KEY, OURS, form_of, mlx_parser, named, read_answer
from callwright.chat.formats import NO_CALL, encode_calls
from callwright.chat.own_form import DEMANDING, NoOwnForm, own_answer, parsers, probe
from callwright.chat.parse import parse_lenient, parse_native
from callwright.chat.tokens import TokenizeError, prompt_ids, tokenize_example
from callwright.decoding import constrain
from callwright.models.convert import open_tokenizer, prepare_chat
from callwright.models.load import load_tokenizer
from callwright.runtime.errors import CallwrightError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "book_table",
            "description": "A table in a restaurant.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string"},
                    "people": {"type": "integer"},
                    "outside": {"type": "boolean"},
                    "wishes": {"type": "array", "items": {"type": "string"}},
                    "kind": {"enum": ["lunch", "dinner"]},
                },
                "required": ["place"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
    },
]
NOW = {"name": "now", "arguments": {}}
SHORT = {"name": "book_table", "arguments": {"place": "Zum Löwen", "people": 4}}
LONG = {"name": "book_table", "arguments": {**SHORT["arguments"], "outside": True, "wishes": ["quiet", "a, b"]}}
ASK = [{"role": "user", "content": "A table, and the time."}]


def example(calls=(), answer=None):
    return {"id": "row", "messages": ASK, "tools": TOOLS, "calls": list(calls), "answer": answer}


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """`converted(family)`: the tokenizer of a converted model of that family, and what its conversion found."""
    found = {}

    def of(family):
        if family not in found:
            template, special, _ = FORMS[family]
            folder = write_tokenizer(tmp_path_factory.mktemp("form") / "model", template, special)
            facts = prepare_chat(folder)
            found[family] = load_tokenizer(folder), facts
        return found[family]

    return of


# -- found, stored, written and read ---------------------------------------------------------------


def test_all_parsers_of_mlx_lm_have_a_family_here():
    assert set(parsers()) - {"laguna"} == {parser for _, _, parser in FORMS.values()}  # laguna is glm47 under its name


@pytest.mark.parametrize("family", FORMS)
def test_a_family_keeps_its_own_form(converted, family):
    tokenizer, facts = converted(family)
    assert facts["chat_template"] == "own"
    assert facts[KEY].removesuffix("+think") == FORMS[family][2]
    form = form_of(tokenizer)
    assert form.own
    assert form.name == facts[KEY]
    assert tokenizer.tool_call_start == form.opening  # what a stock server looks for
    assert tokenizer.tool_parser is mlx_parser(FORMS[family][2]).parse_tool_call


@pytest.mark.parametrize("family", FORMS)
@pytest.mark.parametrize("calls", [[SHORT], [NOW], [SHORT, NOW, SHORT], []], ids=["one", "empty", "three", "none"])
def test_answers_are_trained_as_the_template_renders_them(converted, family, calls):
    tokenizer, _ = converted(family)
    form = form_of(tokenizer)
    if NOW in calls and "calls without arguments" in tokenizer.init_kwargs[KEY]["limits"]:
        with pytest.raises(TokenizeError, match=r"unreadable_answer: in the model's own form"):
            tokenize_example(tokenizer, example(calls))
        return
    row = tokenize_example(tokenizer, example(calls))
    ids, [[start, end]] = row["input_ids"], row["spans"]
    assert ids[:start] == prompt_ids(tokenizer, ASK, TOOLS)
    assert end == len(ids)
    assert ids[-1] in tokenizer.eos_token_ids
    text = tokenizer.decode(ids[start:-1], clean_up_tokenization_spaces=False)
    parsed = form.read(text, TOOLS)
    assert parsed.calls == calls
    assert parsed.errors == []
    assert parsed.content.strip() == ("" if calls else NO_CALL)
    assert read_answer({"text": text, **form.mark}, TOOLS) == parsed
    assert parse_lenient(text, TOOLS) == calls
    if not form.name.startswith("json_tools"):
        assert (parse_native(text).calls == calls) == (not calls)  # nobody takes it for the Hermes form


@pytest.mark.parametrize("family", FORMS)
def test_what_a_form_cannot_carry_is_known_and_rejected(converted, family):
    tokenizer, _ = converted(family)
    limits = tokenizer.init_kwargs[KEY]["limits"]
    assert set(limits) <= set(DEMANDING)
    if "lists of texts" in limits:
        with pytest.raises(TokenizeError, match=r"unreadable_answer: in the model's own form"):
            tokenize_example(tokenizer, example([LONG]))
    else:
        tokenize_example(tokenizer, example([LONG]))


def test_limits_are_those_of_templates_and_parsers(converted):
    limits = {family: converted(family)[0].init_kwargs[KEY]["limits"] for family in FORMS}
    assert {family: found for family, found in limits.items() if found} == {
        "lfm2": ["quotation marks", "line breaks", "backslashes"],  # its template puts texts between ' as they are
        "longcat": ["calls without arguments"],  # mlx-lm's parser of it finds the name by its first argument
        "function gemma": ["lists", "lists of texts", "objects in objects"],  # and this one ends at the first brace
    }


def stock(tokenizer, text):
    """Calls and words as `mlx_lm.server` makes them of an answer: by its state machine and its formatter."""
    state = make_text_state_machine(tokenizer, []).make_state("normal")
    name, before, words, tool, calls = "normal", "normal", "", "", []
    for letter in text:
        state, segments = TextStateMachine.split(state, letter)
        for name, piece in segments:
            tool += piece if name == "tool" else ""
            if name == "normal" and before == "tool":
                calls.append(tool)
                tool = ""
            words += piece if name == "normal" else ""
            before = name
    state, rest, name = TextStateMachine.flush(state)
    words += rest if name == "normal" else ""
    tool += rest if name == "tool" else ""
    found = ToolCallFormatter(tokenizer.tool_parser, TOOLS)([*calls, tool] if tool else calls)
    return [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])} for call in found
    ], words


@pytest.mark.parametrize("family", FORMS)
def test_the_stock_server_reads_what_ours_reads(converted, family):
    tokenizer, _ = converted(family)
    form = form_of(tokenizer)
    for calls in ([SHORT], [SHORT, {**SHORT, "arguments": {"place": "x"}}], [NOW], []):
        if NOW in calls and "calls without arguments" in tokenizer.init_kwargs[KEY]["limits"]:
            continue
        text, _ = own_answer(tokenizer, ASK, TOOLS, calls, "None is free.")
        if form.opens_thinking:  # the server begins in its thinking, since the prompt opens it
            text = "<think>" + text
        made, words = stock(tokenizer, text)
        assert made == calls == form.read(text, TOOLS).calls
        assert words.strip() == ("" if calls else "None is free.") == form.read(text, TOOLS).content.strip()


# -- where it is not taken -------------------------------------------------------------------------

LLAMA = chatml(
    "{%- if message.tool_calls | length != 1 %}{{- raise_exception('one call at once') }}{% endif %}" + EACH
    + "{{- '{\"name\": \"' + call.name + '\", \"parameters\": ' + call.arguments | tojson + '}' }}{%- endfor %}"
)  # fmt: skip
REASONS = {
    "one call at once": LLAMA,
    "no parser of mlx-lm knows its marks": chatml(
        EACH + "{{- '<|tool_call|>' + call | tojson + '<|/tool_call|>' }}{%- endfor %}"
    ),
    "does not render the answer right after the prompt": chatml("").replace(
        "<|im_start|>assistant", "<|im_start|>assistant <!-- now -->"
    ),
    "not with a stop token": chatml("", closes=""),
    "does not show the tools": chatml("").replace("tool | tojson", "''"),
    "do not read the calls back": chatml(EACH + "{{- '<tool_call>' + call.name + '</tool_call>' }}{%- endfor %}"),
    "it has no chat template": None,
    "it raises whatever it likes": "{{ raise_exception('it raises whatever it likes') }}",
}


@pytest.mark.parametrize("reason", REASONS)
def test_the_probe_says_why_a_form_is_not_taken(tmp_path, reason):
    folder = write_tokenizer(tmp_path / "model", REASONS[reason], [])
    with pytest.raises(NoOwnForm, match=reason):
        probe(open_tokenizer(folder))
    with pytest.raises(CallwrightError, match=r"model.call_format is `own`, but .* cannot be used: .*; set it to"):
        prepare_chat(folder, "own")
    facts = prepare_chat(folder)
    assert facts["chat_template"] == "callwright"
    assert facts[KEY] == "hermes"
    assert form_of(load_tokenizer(folder)) is OURS["hermes"]


def test_hermes_on_demand_and_back_again(tmp_path):
    template, special, _ = FORMS["qwen3.5"]
    folder = write_tokenizer(tmp_path / "model", template, special)
    assert prepare_chat(folder, "own")[KEY] == "qwen3_coder+think"
    assert prepare_chat(folder, "hermes") == {
        "chat_template": "callwright",
        KEY: "hermes",
        "stop_tokens": ["</s>", CLOSE],
    }
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tool_parser is mlx_parser("json_tools").parse_tool_call
    row = tokenize_example(tokenizer, example([LONG, NOW]))
    assert tokenizer.decode(row["input_ids"][row["spans"][0][0] : -1]) == encode_calls([LONG, NOW])


def test_thinking_aloud_is_left_out_where_the_template_can_do_so(tmp_path):
    """Qwen3's way: asked not to think, the prompt closes the thinking, and what is left is the Hermes form."""
    switch = "<|im_start|>assistant\\n{opens}' }}{%- if enable_thinking is defined and enable_thinking is false %}"
    switch += "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ '"
    template, special, _ = FORMS["qwen3"]
    thinking = template.replace("<|im_start|>assistant\\n' }}", switch.replace("{opens}", "") + "' }}")
    thinking = thinking.replace("{{ '<|im_end|>\\n' }}", "{{ 'Write <tool_call> blocks.<|im_end|>\\n' }}", 1)
    assert "enable_thinking" in thinking
    assert "Write <tool_call>" in thinking
    folder = write_tokenizer(tmp_path / "model", thinking, special)
    assert probe(open_tokenizer(folder))["name"] == "json_tools"
    facts = prepare_chat(folder)
    assert (facts["chat_template"], facts[KEY]) == ("own", "hermes")
    tokenizer = load_tokenizer(folder)
    row = tokenize_example(tokenizer, example([SHORT, NOW]))
    start = row["spans"][0][0]
    assert tokenizer.decode(row["input_ids"][:start]).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.decode(row["input_ids"][start:-1]) == encode_calls([SHORT, NOW])


def test_a_run_may_ask_for_fenced_lists_of_any_model(converted):
    tokenizer, _ = converted("lfm2")
    assert form_of(tokenizer, "fenced") is OURS["fenced"]
    with pytest.raises(ValueError, match="unknown style 'xml'"):
        form_of(tokenizer, "xml")
    with pytest.raises(CallwrightError, match="no parser .*use a newer"):
        named("a_family_of_2030")


# -- reading ---------------------------------------------------------------------------------------


def test_what_is_thought_aloud_is_not_read():
    block = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    drafted = f"Should I? {block} Yes.</think>\n\n"
    thinking, plain = named("json_tools+think"), named("json_tools")
    for form, text in [(thinking, drafted + block), (plain, f"<think>{drafted}{block}")]:
        assert form.read(text) == parse_native("\n\n" + block)
    for form, text in [(thinking, drafted[:10]), (thinking, "No."), (plain, "<think>No.")]:
        parsed = form.read(text)
        assert parsed.calls == []
        assert parsed.errors == ["the model never ends its thinking"]
    for form, text in [(thinking, f"I call. {block}"), (plain, f"<think>{block}")]:
        assert form.read(text).calls == [NOW]  # never an abstention where there is a call
    assert plain.read(block).calls == [NOW]


def test_bad_blocks_are_errors_that_say_why():
    form = named("pythonic")
    for text, error in [
        ("<|tool_call_start|>[now()]", "is not closed"),
        ("<|tool_call_start|>nothing<|tool_call_end|>", "not a call of the form pythonic: No function"),
        ("<|tool_call_start|>[now(x=b'1')]<|tool_call_end|>", "no JSON"),
        ("<|tool_call_start|>[now(x=1e999)]<|tool_call_end|>", "no JSON"),
    ]:
        parsed = form.read(text)
        assert parsed.calls == []
        assert error in parsed.errors[0]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from([parser for _, _, parser in FORMS.values()]),
    st.lists(
        st.sampled_from([*"{}[]<>|\":,=x1\n' ", "call:f{", "f(x=", "[ARGS]", "<parameter=x>", "</think>"]), max_size=12
    ),
)
def test_no_block_raises_or_yields_what_is_no_call(parser, pieces):
    form = named(parser)
    text = form.opening + "".join(pieces) + form.closing
    for call in form.read(text, TOOLS).calls:
        assert isinstance(call["name"], str)
        json.dumps(call, allow_nan=False, ensure_ascii=False).encode()


# -- under a grammar -------------------------------------------------------------------------------

WITH_GRAMMAR = ["one list without blanks", "mistral list", "mistral header", "lfm2", "qwen3", "kimi k2", "kimi k3"]


def test_json_forms_and_python_lists_have_a_grammar_and_the_others_say_so(converted):
    for family in FORMS:
        form = form_of(converted(family)[0])
        assert (form.layout is not None) == (family in WITH_GRAMMAR), family
        if form.layout is None:
            with pytest.raises(
                CallwrightError, match=f"no grammar for calls in the model's own form {form.name}".replace("+", "[+]")
            ):
                constrain.grammar(TOOLS, style=form)


@pytest.fixture
def reads(converted):
    """`reads(family, text, mode)`: may this be an answer of the family's model, from its first token to its end?"""

    def run(family, text, mode="auto", **options):
        tokenizer, _ = converted(family)
        vocabulary, form = constrain.vocabulary(tokenizer), form_of(tokenizer)
        rules = constrain.grammar(TOOLS, mode, form, special=constrain.special_markers(vocabulary, form), **options)
        constraint = constrain.Constraint(vocabulary, rules)
        ids = tokenizer.encode(text, add_special_tokens=False)
        return all(map(constraint.accept, ids)) and constraint.complete

    return run


@pytest.mark.parametrize("family", WITH_GRAMMAR)
def test_the_grammar_allows_what_the_template_writes_and_no_wrong_call(converted, reads, family):
    tokenizer, _ = converted(family)
    lead = form_of(tokenizer).layout.lead

    def answer(calls, words=""):
        return own_answer(tokenizer, ASK, TOOLS, calls, words)[0]

    dinner = {"name": "book_table", "arguments": {"kind": "dinner", "place": "x"}}
    for calls in ([SHORT], [NOW], [LONG], [SHORT, NOW], [NOW, LONG, dinner]):
        text = answer(calls)
        assert reads(family, text), text
        assert reads(family, lead + "Let me see. " + text.removeprefix(lead))
        assert reads(family, text, "required")
        assert not reads(family, text, "none")
        assert reads(family, text, parallel=False) == (len(calls) == 1)
        assert not reads(family, text[:-1])
    assert reads(family, answer([], "No table is free."))
    assert not reads(family, answer([], "No table is free."), "required")
    assert reads(family, answer([NOW]), "now")
    assert not reads(family, answer([SHORT]), "now")
    for wrong in [
        {"name": "then", "arguments": {}},
        {"name": "now", "arguments": {"zone": "x"}},
        {"name": "book_table", "arguments": {"people": 4}},
        {"name": "book_table", "arguments": {"place": "x", "people": "four"}},
        {"name": "book_table", "arguments": {"place": "x", "kind": "tea"}},
    ]:
        assert not reads(family, answer([wrong])), wrong


def test_python_lists_take_both_quotation_marks_and_words(reads):
    for arguments in ("place='x'", 'place="x"', "people=4, place='it\\'s'", "place='x', outside=True, wishes=[]",
                      "place='x', outside=false", "place='x', wishes=['a', \"b\"]",
                      "kind='lunch', place=\"x\""):  # fmt: skip
        assert reads("lfm2", f"<|tool_call_start|>[book_table({arguments})]<|tool_call_end|>"), arguments
    for arguments in ("", "place=x", "place='x',people=4", "place='x', place='y'", "place='x' ", "'x'"):
        assert not reads("lfm2", f"<|tool_call_start|>[book_table({arguments})]<|tool_call_end|>"), arguments


# -- templates with mistakes -----------------------------------------------------------------------


def test_doubled_braces_are_mended_with_a_warning(tmp_path, caplog):
    shown = '\\n<tool_call>\\n{{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}}\\n</tool_call>'
    calls = (
        EACH + '{{- \'<tool_call>\\n{"name": "\' + call.name + \'", "arguments": \' + call.arguments | tojson + \'}\\n'
    )
    calls += "</tool_call>' }}{{- '' if loop.last else '\\n' }}{%- endfor %}"
    template = chatml(calls).replace("{{ '<|im_end|>\\n' }}", '{{- "' + shown + '<|im_end|>\\n" }}', 1)
    folder = write_tokenizer(tmp_path / "model", template, [])
    before = open_tokenizer(folder)
    assert '{{"name"' in before.decode(prompt_ids(before, ASK, TOOLS))
    facts = prepare_chat(folder)
    assert facts["chat_template"] == "own"
    assert facts[KEY] == "hermes"
    assert "doubled braces" in caplog.text
    after = load_tokenizer(folder)
    text = after.decode(prompt_ids(after, ASK, TOOLS))
    assert '\n{"name": <function-name>, "arguments": <args-json-object>}\n' in text
    assert text == before.decode(prompt_ids(before, ASK, TOOLS)).replace("{{", "{").replace("}}\n</tool", "}\n</tool")


def test_a_template_that_tells_the_date_is_named(tmp_path, caplog):
    template, special, _ = FORMS["lfm2"]
    folder = write_tokenizer(tmp_path / "model", "{%- set day = strftime_now('%d') %}" + template, special)
    prepare_chat(folder)
    assert "writes today's date into prompts" in caplog.text


def test_a_plain_base_model_gets_chatml_and_a_loud_warning(tmp_path, caplog):
    folder = write_tokenizer(tmp_path / "model", None, [], turns=False)
    facts = prepare_chat(folder)
    assert facts["chat_template"] == "callwright"
    assert "THIS IS A BASE MODEL" in caplog.text
    tokenizer = load_tokenizer(folder)
    row = tokenize_example(tokenizer, example([SHORT, NOW]))
    assert row["input_ids"][-1] == tokenizer.convert_tokens_to_ids("</s>")
    text = tokenizer.decode(row["input_ids"])
    assert text.endswith(f"</s>\n<|im_start|>assistant\n{encode_calls([SHORT, NOW])}</s>")
    assert "<|im_end|>" not in text


TURNS = {
    "llama 3": (["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>",
                "<|start_header_id|>user<|end_header_id|>\n\nA table, and the time.<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    "mistral": (["[INST]", "[/INST]"], "</s>", "in plain words.\n\nA table, and the time.[/INST]"),
    "phi 4": (["<|im_start|>", "<|im_sep|>", "<|im_end|>"], "<|im_end|>",
              "plain words.<|im_end|><|im_start|>user<|im_sep|>A table, and the time.<|im_end|>"
              "<|im_start|>assistant<|im_sep|>"),
    "phi": (["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], "<|end|>",
            "<|user|>A table, and the time.<|end|><|assistant|>"),
}  # fmt: skip


@pytest.mark.parametrize("family", TURNS)
def test_templates_of_ours_speak_a_family_s_turns(tmp_path, family):
    special, end, asked = TURNS[family]
    folder = write_tokenizer(tmp_path / "model", None, special, turns=False)
    assert prepare_chat(folder)["chat_template"] == "callwright"
    tokenizer = load_tokenizer(folder)
    row = tokenize_example(tokenizer, example([SHORT, NOW]))
    ids, [[start, _]] = row["input_ids"], row["spans"]
    prompt = tokenizer.decode(ids[:start], clean_up_tokenization_spaces=False)
    assert prompt.endswith(asked)
    assert '"name":"book_table"' in prompt or "book_table(" in prompt
    assert tokenizer.decode(ids[start:]) == encode_calls([SHORT, NOW]) + end
    turn = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": NOW}]}
    result = [{"role": "tool", "content": "noon"}, {"role": "tool", "content": "12"}]
    later = {**example(answer="It is noon."), "messages": [*ASK, turn, *result]}
    text = tokenizer.decode(tokenize_example(tokenizer, later)["input_ids"])
    assert encode_calls([NOW]) + end in text
    assert "<tool_response>\nnoon\n</tool_response>\n<tool_response>\n12\n</tool_response>" in text
    assert text.endswith("It is noon." + end)
