"""Typed arguments: declared by a schema or a signature, advertised, checked, and corrected by the name of the field."""

import enum
import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swirl_env
from fakes import EchoTool, SumTasks
from swirl_env.arguments import check_arguments, read_arguments
from swirl_env.contract import assert_contract
from swirl_env.env import ToolUseEnv
from swirl_env.episodes.formats import HermesBareFormat, HermesFormat, NativeFormat, XmlFormat
from swirl_env.errors import ConfigError
from swirl_env.types import Answer, Malformed, ToolCall, ToolResult
from swirl_env.vector import ToolVectorEnv


class Route:
    """A tool with a hand-written schema."""

    tag = "route"
    description = "finds a way."
    parameters = {
        "type": "object",
        "properties": {
            "start": {"type": "string", "minLength": 1},
            "stops": {"type": "integer", "minimum": 0, "maximum": 9},
            "by": {"type": "string", "enum": ["rail", "road"]},
        },
        "required": ["start", "stops"],
    }

    def __init__(self):
        self.queries = []

    def run(self, queries):
        self.queries += queries
        return [ToolResult(json.dumps(query, sort_keys=True)) for query in queries]


@swirl_env.tool
def power(base: float, exponent: int = 2) -> str:
    """raises a number to a power.

    Args:
        base: any number,
            also a negative one.
        exponent (int): a whole number.
    """
    return f"{base**exponent:g}"


@swirl_env.tool
def double(n: int) -> str:
    """doubles a number."""
    return str(2 * n)


@swirl_env.tool
def shout(text: str) -> str:
    """writes in capitals."""
    return text.upper()


def play(tool, action, format="xml"):
    env = ToolUseEnv(SumTasks(), tools=[tool], judge=None, format=format)
    prompt, _ = env.reset(seed=0)
    observation, *_, info = env.step(action)
    return prompt, observation, info


def hermes(**call):
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def test_a_signature_becomes_a_schema():
    assert power.parameters["required"] == ["base"] and power.parameters["properties"]["exponent"]["type"] == "integer"
    assert power.parameters["properties"]["base"]["description"] == "any number, also a negative one."
    assert power.description == "raises a number to a power." and power(3.0) == "9"


@pytest.mark.parametrize("format", ["xml", "hermes"])
def test_a_typed_tool_gets_a_dict_per_call(format):
    tool, arguments = Route(), {"start": "Oslo", "stops": 2, "by": "rail"}
    action = f"<route>{json.dumps(arguments)}</route>" if format == "xml" else hermes(name="route", arguments=arguments)
    prompt, observation, info = play(tool, action, format)
    assert tool.queries == [arguments] and json.dumps(arguments, sort_keys=True) in observation
    assert isinstance(info["call"], ToolCall) and all(name in prompt for name in ("start", "stops", "rail"))


@pytest.mark.parametrize("format", ["xml", "hermes"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"start": "Oslo"}, 'argument "stops" is missing'),
        ({"start": "Oslo", "stops": "many"}, 'argument "stops" must be a whole number; it was a text'),
        ({"start": "Oslo", "stops": 2.5}, 'argument "stops" must be a whole number; it was a number'),
        ({"start": "Oslo", "stops": True}, '"stops" must be a whole number; it was true or false'),
        ({"start": "Oslo", "stops": 12}, '"stops" must be at most 9'),
        ({"start": "", "stops": 1}, '"start" must have at least 1'),
        ({"start": "Oslo", "stops": 1, "by": "sea"}, '"by" must be one of "rail", "road"'),
        ({"start": "Oslo", "stop": 1, "stops": 2}, 'no argument "stop"; the arguments are "start", "stops", "by"'),
        ({"start": ["Oslo"], "stops": 1}, '"start" must be a text; it was a list'),
        ({"start": None, "stops": 1}, '"start" must be a text; it was null'),
        ({"start": "Oslo", "stops": 1, "</answer>": 1}, "no argument of another name"),
    ],
)
def test_arguments_that_do_not_fit_get_a_correction_that_names_the_field(format, arguments, says):
    tool = Route()
    action = f"<route>{json.dumps(arguments)}</route>" if format == "xml" else hermes(name="route", arguments=arguments)
    _, observation, info = play(tool, action, format)
    assert says in observation and isinstance(info["call"], Malformed) and tool.queries == [] and info["result"] is None


@pytest.mark.parametrize("tool_and_text", [(double, "21"), (double, " 21 "), (double, '{"n": 21}'), (double, '{"n": "21"}')])
def test_one_argument_may_be_bare_in_xml(tool_and_text):
    tool, text = tool_and_text
    assert play(tool, f"<double>{text}</double>")[1].endswith("-> 42")
    assert "<double>...</double>" in play(tool, "")[0]


@pytest.mark.parametrize("text", ["abc", '{"no": 1', "{}", '{"other": 1}', '"q"'])
def test_a_bare_text_may_look_like_json(text):
    expected = text.upper() if text != "{}" else None
    _, observation, info = play(shout, f"<shout>{text}</shout>")
    assert observation == f"{text} -> {expected}" if expected else 'argument "text" is missing' in observation, info


def test_optional_arguments_may_be_left_out():
    assert play(power, "<power>3</power>")[1] == "3 -> 9"
    assert play(power, '<power>{"base": 2, "exponent": "5"}</power>')[1].endswith("-> 32")
    assert 'argument "exponent" must be a whole number' in play(power, '<power>{"base": 2, "exponent": "x"}</power>')[1]


@pytest.mark.parametrize(
    ("call", "query"),
    [
        ({"arguments": {"query": "Oslo"}}, "Oslo"),
        ({"arguments": '{"query": "Oslo"}'}, "Oslo"),
        ({"arguments": "Oslo"}, "Oslo"),
        ({"parameters": {"query": "Oslo"}}, "Oslo"),
        ({"parameters": '{"q": "Oslo"}'}, "Oslo"),
        ({"arguments": {"expression": " 2+2 "}}, "2+2"),
        ({"arguments": {"query": 1984}}, "1984"),
        ({"arguments": {"query": 0.5}}, "0.5"),
        ({"arguments": 12}, "12"),
        ({"arguments": {"query": True}}, "true"),
    ],
)
def test_hermes_reads_one_text_however_it_is_wrapped(call, query):
    read = HermesFormat(("search_query",)).parse(hermes(name="search_query", **call))
    assert isinstance(read, ToolCall) and read.query == query


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({}, '"arguments": {"query": ...}'),
        ({"arguments": {}}, '"arguments": {"query": ...}'),
        ({"arguments": None}, '"arguments": {"query": ...}'),
        ({"arguments": ""}, '"arguments": {"query": ...}'),
        ({"arguments": {"query": ["a"]}}, 'argument "query" was not a text'),
        ({"arguments": {"query": "a", "top_k": 5}}, 'the arguments "query", "top_k"'),
        ({"arguments": ["a"]}, "not an object"),
        ({"arguments": {"</tool>": {}}}, "of another name"),
    ],
)
def test_hermes_answers_arguments_that_it_cannot_use_with_what_is_missing(call, says):
    read = HermesFormat(("search_query",)).parse(hermes(name="search_query", **call))
    assert isinstance(read, Malformed) and says in read.reason and "</tool>" not in read.reason


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5_000])
def test_numbers_beyond_all_bounds_are_no_json(number):
    text = f'<tool_call>{{"name": "route", "arguments": {{"stops": {number}}}}}</tool_call>'
    assert "not valid JSON" in HermesFormat(("route",), {"route": Route.parameters}).parse(text).reason


@pytest.mark.parametrize(
    "latex", [r"\frac{1}{2}", r"2 \times 3", r"\binom{4}{2}", r"\sqrt{2}", r"\left(1\right)", r"\\ \text{km}"]
)
@pytest.mark.parametrize("form", [HermesFormat, HermesBareFormat, NativeFormat])
def test_latex_in_json_is_not_read_without_its_backslash(form, latex):
    fmt = form(("math_exp",))
    call = '<tool_call>{"name": "math_exp", "arguments": {"query": "%s"}}</tool_call>'
    read = fmt.parse(call % latex)
    assert isinstance(read, Malformed) and "A backslash in JSON is written twice" in read.reason
    inner = json.dumps(f'{{"query": "{latex}"}}')  # the object as a string, its own backslashes single again
    read = fmt.parse(f'<tool_call>{{"name": "math_exp", "arguments": {inner}}}</tool_call>')
    assert isinstance(read, Malformed) and "A backslash in JSON is written twice" in read.reason
    assert fmt.parse(call % latex.replace("\\", "\\\\")).query == latex
    assert fmt.parse(fmt.call("math_exp", "\x0crac \times \right x\n\ty")).query == "rac \times \right x\n\ty"


def test_tabs_and_line_ends_in_code_are_meant():
    call = '<tool_call>{"name": "python", "arguments": {"query": "if x:\\n\\treturn y\\nu = 2"}}</tool_call>'
    assert HermesFormat(("python",)).parse(call).query == "if x:\n\treturn y\nu = 2"


def test_hermes_of_typed_tools():
    for call in ({"arguments": {"n": 21}}, {"arguments": '{"n": 21}'}, {"parameters": {"n": "21"}}, {"arguments": {"query": 21}}):
        assert play(double, hermes(name="double", **call), "hermes")[1] == "21 -> 42", call
    assert '"arguments": {"base": ...}' in play(power, hermes(name="power"), "hermes")[1]
    assert '"type": "integer"' in play(double, "", "hermes")[0]


def test_bare_json_on_the_last_line_is_an_option():
    bare, plain = HermesBareFormat(("search_query",)), HermesFormat(("search_query",))
    call = '{"name": "search_query", "arguments": {"query": "Oslo"}}'
    text = f"I look it up.\n  {call} \n\n"
    read = bare.parse(text)
    assert isinstance(read, ToolCall) and read.query == "Oslo" and text[read.start : read.end] == call
    assert isinstance(plain.parse(text), Malformed)
    for fenced in (f"So:\n```json\n{call}\n```\n", f"```\n{json.dumps(json.loads(call), indent=2)}\n```"):
        read = bare.parse(fenced)
        assert isinstance(read, ToolCall) and read.query == "Oslo"
        assert fenced[read.start :].strip() == fenced[read.start : read.end]
    others = [f"{call}\nor not", f"<think>{call}", f"see {call}", "{}", '{"name": 3}', call[:-1]]
    for other in (*others, f"```json\n{call}\n``` or not", f"<think>\n```json\n{call}\n```", "```", "```\n```"):
        assert isinstance(bare.parse(other), Malformed), other
    assert isinstance(bare.parse(f"<answer>x</answer>\n{call}"), Answer)
    assert_contract("format", "hermes_bare")
    assert play(shout, '{"name": "shout", "arguments": {"text": "a"}}', "hermes_bare")[1] == "a -> A"


def test_a_batch_of_typed_calls_equals_single_calls():
    actions = ["<double>1</double>", "<double>x</double>", "<echo>a</echo>", "<double>3</double>"]
    venv = ToolVectorEnv(SumTasks(), 4, tools=[double, EchoTool()], judge=None)
    venv.reset(seed=0)
    observations = venv.step(actions)[0]
    for i, action in enumerate(actions):
        env = ToolUseEnv(SumTasks(), tools=[double, EchoTool()], judge=None)
        env.reset(seed=i)
        assert env.step(action)[0] == observations[i]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def test_types_of_a_signature_are_converted():
    seen = []

    @swirl_env.tool
    def paint(colour: Colour, sizes: list[int], kind: Literal["oil", "wax"] = "oil", note: str | None = None) -> str:
        """paints."""
        seen.append((colour, sizes, kind, note))
        return "done"

    assert paint.run([{"colour": "red", "sizes": [1, 2]}])[0].text == "done" and seen == [(Colour.RED, [1, 2], "oil", None)]
    for wrong in (
        '{"colour": "green", "sizes": []}',
        '{"colour": "red", "sizes": ["x"]}',
        '{"colour": "red", "sizes": [], "kind": 1}',
    ):
        assert paint.run([wrong])[0].error == "invalid"


def test_functions_that_cannot_be_tools_are_refused():
    for function in (lambda: "x", lambda *a: "x", lambda **k: "x"):
        with pytest.raises(ConfigError, match="at least one argument, each with a name"):
            swirl_env.tool(tag="t", description="d")(function)

    def odd(x: object(), y: str) -> str:  # type: ignore[valid-type]
        """odd."""
        return y

    with pytest.raises(ConfigError):
        swirl_env.tool(odd)
    with pytest.raises(ConfigError, match="JSON Schema object"):
        broken = Route()
        broken.parameters = {"start": "string", "properties": {"start": "string"}}
        ToolUseEnv(SumTasks(), tools=[broken])


NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "v": {"type": "integer"}}, "required": ["v"]}
SCHEMA = {
    "type": "object",
    "properties": {
        "node": {"$ref": "#/$defs/Node"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^a"}]},
        "pair": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
    },
    "$defs": {
        "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "v": {"type": "integer"}}, "required": ["v"]}
    },
}


@pytest.mark.parametrize("tool", [Route(), power, double, shout])
def test_typed_tools_meet_the_contract(tool):
    assert_contract("tool", tool)


def test_nested_schemas():
    fits = {"node": {"v": 1, "next": {"v": 2}}, "either": "abc", "pair": [1, 2.5]}
    assert check_arguments(SCHEMA, fits) == fits and check_arguments(SCHEMA, {"either": 5}) == {"either": 5}
    for wrong, says in (
        ({"node": {"v": 1, "next": {}}}, '"v" of "next" of "node" is missing'),
        ({"either": "b"}, '"either"'),
        ({"pair": [1]}, "at least 2 items"),
        ({"pair": [1, "x"]}, '"pair"[1] must be a number'),
    ):
        assert says in check_arguments(SCHEMA, wrong)
    loop = {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}
    assert check_arguments(loop, {"a": 1}) == {"a": 1}


@given(st.text(st.characters(exclude_categories=[])) | st.sampled_from(['{"stops":', "{}", "[]", "null", '{"start": {"a": []}}']))
def test_arguments_are_read_from_any_text(text):
    for schema in (Route.parameters, SCHEMA, double.parameters, {"type": "object"}):
        read = read_arguments(schema, text)
        assert (isinstance(read, str) and read) or read_arguments(schema, json.dumps(read)) == read


def test_xml_names_the_form_of_several_arguments():
    text = XmlFormat(("route",)).instructions([Route()])
    assert '<route>{"start": a text, "stops": a whole number, "by": "rail" or "road" (may be left out)}</route>' in text
