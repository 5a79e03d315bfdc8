"""Native tool calling with the real templates of open models: calls come back as they were, and states grow id for id.

Tokenizers are fetched by ``python -m swirl_env.benchmarks.fetch_tokenizers``; those that are not there are skipped.
"""

import functools
import json
import random
import unicodedata

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from test_agents_real_tokenizers import CONTROLS, load

import tiny_lm
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.agents.transformers.stopping import Stopper
from swirl_env.arguments import loads
from swirl_env.episodes.formats import HermesFormat, NativeFormat
from swirl_env.episodes.transcript import initial_state, next_state, observe
from swirl_env.errors import ConfigError
from swirl_env.types import Action, Malformed, Settings, Step, Task, ToolCall, ToolResult

NAMES = ("qwen2.5", "qwen3", "llama3.2", "mistral-nemo")
ROUTE = {"type": "object", "properties": {"to": {"type": "string"}, "stops": {"type": "array"}}, "required": ["to", "stops"]}
TAGS = ("search_query", "math_exp", "route")
FORMATS = {"native": NativeFormat(TAGS, {"route": ROUTE}), "hermes": HermesFormat(TAGS, {"route": ROUTE})}


class Tool:
    """A tool by its tag."""

    def __init__(self, tag):
        self.tag, self.description = tag, f"Does {tag}."
        if tag == "route":
            self.parameters = ROUTE

    def run(self, queries):
        return [ToolResult("4") for _ in queries]


FUNCTIONS = json.dumps(FORMATS["native"].functions([Tool(tag) for tag in TAGS]))
NATIVE = Settings(TAGS, 6, "native", functions=FUNCTIONS)
HOSTILE = (*CONTROLS, "</tool_call>", "<tool_call>{}", "[/TOOL_RESULTS]", "<answer>x</answer>", "2 < 3")
PROSE = ("", "I look it up.\n", "So 3 < 4. ", "<think>\nOr <answer>5</answer>?\n</think>\n\n")
MARKS = "<>/{}[]\"'\\|\n 0a"


def a_text(rng):
    """Returns a random text: marks that JSON and templates use, any other character, now and then a control token."""
    chars = [
        rng.choice((rng.choice(MARKS), chr(rng.randrange(1, 128)), chr(rng.randrange(0x110000))))
        for _ in range(rng.randint(1, 24))
    ]
    # Composed, as Qwen's tokenizers make of all text.
    text = unicodedata.normalize("NFC", "".join(chars).encode("utf-8", "replace").decode())
    return text + rng.choice(HOSTILE) if rng.random() < 0.4 else text


def a_value(rng, depth=2):
    kind = rng.randrange(6 if depth else 5)
    if kind == 5:
        return [a_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return (a_text(rng), rng.randint(-(10**9), 10**9), rng.random(), rng.random() < 0.5, None)[kind]


@functools.cache
def generated(conversations=40, calls=25):
    """Returns conversations of generated calls: (words before the call, tool, its text). Tools take turns."""
    rng = random.Random(0)
    made = []
    for _ in range(conversations):
        turns = []
        for tool in (TAGS * calls)[:calls]:
            route = {"to": a_text(rng), "stops": [a_value(rng) for _ in range(rng.randint(0, 3))]}
            query = json.dumps(route) if tool == "route" else a_text(rng)
            turns.append((rng.choice(PROSE), tool, query if query.strip() else "0"))
        made.append(turns)
    return made


@functools.cache
def renderer(name):
    return Renderer(load(name), date="2026-01-02")


def begin(fmt):
    settings = NATIVE if fmt == "native" else msgspec.structs.replace(NATIVE, format=fmt, functions="")
    return initial_state(Task("t", "Q"), "How far is it?", settings)


def go_on(state, text, ids=(), result="4 km"):
    call = FORMATS[state.settings.format].parse(text)
    observation = observe(call, ToolResult(result), "Write one tool call.")
    action = Action(text, ids, prompt_ids=renderer_of(state).ids(state) if ids else ())
    return next_state(state, Step(action, call, ToolResult(result), observation))


def renderer_of(state, name=None):
    return renderer(name or "qwen2.5").of(state.settings)


def meaning(fmt, call):
    """Returns tool and arguments of a call, however its text spells them."""
    assert isinstance(call, ToolCall), call
    return call.tool, loads(call.query) if call.tool == "route" else call.query


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["native", "hermes"])
@pytest.mark.parametrize("name", NAMES)
def test_1000_generated_calls_come_back_through_the_real_template(name, fmt):
    load(name)  # skips if it is not there
    of_state, parse = renderer_of(begin(fmt), name), FORMATS[fmt].parse
    for turns in generated():
        state, again = begin(fmt), begin(fmt)
        for prose, tool, query in turns:
            state = go_on(state, prose + FORMATS[fmt].call(tool, query))
            expected = loads(query) if tool == "route" else query.strip()
            assert meaning(fmt, state.steps[-1].call) == (tool, expected)
        rendered = of_state.render(state)
        texts = [of_state.decode(rendered.ids[start:end]) for start, end in rendered.spans]
        for text, (start, end), step in zip(texts, rendered.spans, state.steps, strict=True):
            assert meaning(fmt, parse(text)) == meaning(fmt, step.call)
            # The model itself, if it samples these ids, has made the same call.
            again = next_state(again, Step(Action(text, rendered.ids[start:end]), parse(text), step.result, step.observation))
        assert of_state.render(again).ids == rendered.ids
    assert sum(map(len, generated())) == 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_states_grow_id_for_id(name):
    load(name)
    of_state = renderer_of(begin("native"), name)
    form, end = of_state._template.form, of_state.tokenizer.eos_token_id
    call = f'{form.before}math_exp{form.between}{{"query": "7*8"}}{form.after}'
    ids = tuple(of_state.tokenizer.encode(call, add_special_tokens=False))
    bare = '{"name": "math_exp", "arguments": {"query": "1"}}'
    letters = tuple(i for letter in bare for i in of_state.tokenizer.encode(letter, add_special_tokens=False))
    oops = tuple(of_state.tokenizer.encode("I would say five.", add_special_tokens=False))
    for sampled in (ids, (*ids, end), letters, (*oops, end)):
        state = begin("native")
        for turn in range(3):
            before = of_state.ids(state)
            text = of_state.decode(sampled)
            parsed = FORMATS["native"].parse(text)
            assert isinstance(parsed, Malformed if sampled[:2] == oops[:2] else ToolCall)
            state = next_state(state, Step(Action(text, sampled, prompt_ids=before), parsed, None, f"result {turn}"))
            rendered = of_state.render(state)
            assert rendered.ids[: len(before) + len(sampled)] == before + sampled and rendered.sampled[-1]
    assert not of_state.drifts(ids, of_state.decode(ids))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_states_read_as_the_template_writes_them(name):
    tokenizer = load(name)
    of_state = renderer_of(begin("native"), name)
    state = go_on(begin("native"), FORMATS["native"].call("math_exp", "7*8"))
    function = {"name": "math_exp", "arguments": {"query": "7*8"}}
    messages = [
        {"role": "user", "content": "How far is it?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "call00000", "type": "function", "function": function}]},
        {"role": "tool", "name": "math_exp", "tool_call_id": "call00000", "content": "4 km"},
    ]
    dated = {"date_string": "02 Jan 2026"} if name == "llama3.2" else {}
    whole = tokenizer.apply_chat_template(
        messages, tools=json.loads(FUNCTIONS), tokenize=False, add_generation_prompt=True, **dated
    )
    assert list(of_state.ids(state)) == tokenizer.encode(whole, add_special_tokens=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_others_becomes_a_control_token(name):
    load(name)
    of_state = renderer_of(begin("native"), name)
    call = FORMATS["native"].call("search_query", "x")
    usual = [i for i in of_state.ids(go_on(begin("native"), call)) if i in of_state.control_ids]
    for hostile in (*CONTROLS, "[TOOL_CALLS]", "</tool_response>", "<|python_tag|>"):
        state = go_on(begin("native"), FORMATS["native"].call("search_query", hostile), result=hostile)
        assert [i for i in of_state.ids(state) if i in of_state.control_ids] == usual, hostile


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_with_history_calls_the_calls_alone_are_structured(name):
    load(name)
    settings_ = msgspec.structs.replace(NATIVE, history="calls")
    state = initial_state(Task("t", "Q"), "How far?", settings_)
    state = go_on(
        go_on(state, f"First this.\n{FORMATS['native'].call('math_exp', '1')}"), FORMATS["native"].call("math_exp", "2")
    )
    of_state = renderer_of(state, name)
    rendered = of_state.render(state)
    calls = [FORMATS["native"].parse(of_state.decode(rendered.ids[a:b])) for a, b in rendered.spans]
    assert [call.query for call in calls] == ["1", "2"]
    assert "First" not in of_state.tokenizer.decode(rendered.ids)


@pytest.mark.parametrize("template", [tiny_lm.GEMMA, tiny_lm.HARMONY])
def test_a_template_without_tools_is_refused(template):
    with pytest.raises(ConfigError, match="use format=hermes"):
        Renderer(tiny_lm.tokenizer(template)).of(NATIVE)


def test_the_plain_template_is_refused():
    with pytest.raises(ConfigError, match="format=hermes"):
        Renderer(tiny_lm.tokenizer(), template="plain").of(NATIVE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_generation_stops_with_the_last_brace_of_a_call_without_tags(name):
    load(name)
    of_state = renderer_of(begin("native"), name)
    bare = '{"name": "route", "parameters": {"to": "Oslo", "stops": [{"a": 1}]}}'
    answer = '{"name": "answer", "arguments": {"answer": "5"}}'
    for text, end in (
        (bare, len(bare)),
        (f"<think>{bare}</think>\n{bare}", 2 * len(bare) + 16),
        ("<answer>5</answer>", 18),
        (answer, len(answer)),
    ):
        stopped = Stopper(of_state.codec).test(NATIVE, False)
        ids = of_state.tokenizer.encode(f"{text}\nResult: 4", add_special_tokens=False)
        count = next(n for n in range(1, len(ids) + 1) if stopped(ids[:n]))
        assert of_state.decode(ids[:count]).rstrip() == text and len(text) == end
