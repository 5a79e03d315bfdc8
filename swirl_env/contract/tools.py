"""The contract of tools."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import msgspec

from swirl_env.arguments import check_arguments, read_arguments, schema_of
from swirl_env.contract.rules import (
    HOSTILE,
    HUGE,
    PLAIN,
    Broken,
    Unchecked,
    attempt,
    count,
    expect,
    first_difference,
    quiet,
    random_texts,
    shown,
    storable,
)
from swirl_env.episodes.guarded import run_tool
from swirl_env.types import UNAVAILABLE, ToolError, ToolResult

_XML_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_TAKEN = ("answer", "think", "tool_call")
_NEVER_RAISE = "a tool never raises for bad input: return ToolResult(text, error='invalid')"
_ERRORS = get_args(ToolError)


def has_tag_description_and_run(tool: Unchecked) -> None:
    """Has `tag`, `description` and `run`."""
    for name, what in (("tag", "text"), ("description", "text"), ("run", "method")):
        value = getattr(tool, name, None)
        fits = callable(value) if what == "method" else isinstance(value, str)
        expect(fits, f"expected a {what} `{name}`, got {shown(value)}; set it on {type(tool).__name__}.")


def parameters_are_a_json_schema(tool: Unchecked) -> None:
    """If it has `parameters`, they are a JSON Schema object with named properties."""
    schema = schema_of(tool)
    if schema is None:
        return
    properties: Unchecked = schema.get("properties") if isinstance(schema, Mapping) else None
    fits = isinstance(properties, Mapping) and all(isinstance(inner, Mapping) for inner in properties.values())
    expect(fits and storable(dict(schema)) is None, f"expected a JSON Schema with properties as parameters, got {shown(schema)}.")
    unknown = [name for name in schema.get("required", ()) if name not in properties]
    expect(not unknown, f"expected the required arguments among the properties, got {shown(unknown)}.")


def tag_is_an_xml_name(tool: Unchecked) -> None:
    """The tag is a valid XML name and not taken."""
    fits = _XML_NAME.fullmatch(tool.tag) is not None and not tool.tag.lower().startswith("xml")
    expect(fits, f"expected a tag of letters, digits and '_', got {shown(tool.tag)!r}; a policy writes it as <tag>.")
    expect(tool.tag not in _TAKEN, f"expected a tag of its own, got {tool.tag!r}, which formats use; choose another.")


def description_is_one_line(tool: Unchecked) -> None:
    """The description is one line that is not empty."""
    text = tool.description
    one = bool(text.strip()) and len(text.splitlines()) == 1 and storable(text) is None
    expect(one, f"expected one line for the prompt, got {shown(text)!r}; say what the tool does and what to write.")


def one_result_per_query(tool: Unchecked) -> None:
    """Gives one result per query, none for an empty batch, and leaves the queries alone."""
    count(attempt(tool.run, [], given="an empty batch", fix="return []"), 0, "results for an empty batch", "run")
    queries = tool_inputs(tool, [*PLAIN, PLAIN[0]])
    n = len(queries)
    results = attempt(tool.run, queries, given=f"{n} queries", fix=_NEVER_RAISE)
    count(results, n, f"results for {n} queries", "run")
    same = queries == tool_inputs(tool, [*PLAIN, PLAIN[0]])
    expect(same, "expected run to leave its queries alone, got a changed list; copy it before changing it.")
    results = attempt(tool.run, tuple(queries), given="a tuple", fix="take any sequence")
    count(results, n, f"results for {n} queries", "run")


def results_are_well_formed(tool: Unchecked) -> None:
    """Every result is a `ToolResult` with text and a known error or none."""
    for query, result in _answers(tool, PLAIN):
        well_formed(query, result)


def results_can_be_stored(tool: Unchecked) -> None:
    """Text and data of every result can be written as JSON and read back."""
    for query, result in _answers(tool, [q for q in (*PLAIN, *HOSTILE) if storable(q) is None]):
        why = storable(result)
        expect(why is None, f"expected JSON values for {shown(query)!r}, but {why}; convert them.")


def a_batch_equals_singles(tool: Unchecked) -> None:
    """A batch of n gives what n batches of one give, in the same order, every time."""
    queries = tuple(tool_inputs(tool, [*PLAIN, *HOSTILE[:9]]))
    batch = tool.run(queries)
    for name, others in (
        ("single calls", [tool.run([query])[0] for query in queries]),
        ("the batch in reverse", tool.run(queries[::-1])[::-1]),
        ("the same batch again", tool.run(queries)),
    ):
        at = first_difference(batch, others)
        if at is not None:
            query, a, b = shown(queries[at]), shown(batch[at]), shown(others[at])
            raise Broken(f"expected {name} to give {a} for {query!r}, got {b}; a result may depend on its query alone.")


def one_bad_query_spoils_no_other(tool: Unchecked) -> None:
    """If a batch raises because of one query, the engine gives the others what they get alone."""
    queries = tool_inputs(tool, PLAIN)
    bad = queries[1]

    class Raising:
        tag, description = tool.tag, tool.description

        def run(self, queries: Sequence[Unchecked]) -> Unchecked:
            if bad in queries:
                raise RuntimeError("one bad query")
            return tool.run(queries)

    with quiet():
        results = run_tool(Raising(), queries)
    wanted = [UNAVAILABLE if query == bad else run_tool(tool, [query])[0] for query in queries]
    at = first_difference(wanted, results)
    if at is not None:
        a, b = shown(wanted[at]), shown(results[at])
        raise Broken(f"expected {a} for {shown(queries[at])!r} next to a query that raises, got {b}; do not rely on the batch.")


def earlier_results_stay_as_they_are(tool: Unchecked) -> None:
    """A result does not change when the tool is called again: its data is a copy of what the tool keeps."""
    queries = tool_inputs(tool, PLAIN)
    (result,) = tool.run(queries[:1])
    before = msgspec.json.encode(result)
    tool.run(queries[1:])
    same = msgspec.json.encode(result) == before
    expect(same, "expected an earlier result unchanged after later calls, got another; copy lists before returning them as data.")


def survives_hostile_input(tool: Unchecked) -> None:
    """Never raises: empty, NUL, surrogates, markup, code, nesting, any Unicode."""
    for query, result in _answers(tool, [*HOSTILE, *random_texts()]):
        well_formed(query, result)


def survives_a_megabyte(tool: Unchecked) -> None:
    """Never raises for queries of a megabyte."""
    for query, result in _answers(tool, HUGE):
        well_formed(query, result)


def _answers(tool: Unchecked, queries: Unchecked) -> list[tuple[Unchecked, Unchecked]]:
    """Returns each query with its result, called one by one, so that a finding names the query."""
    answers = []
    for query in tool_inputs(tool, queries):
        results = attempt(tool.run, [query], given=f"the query {shown(query)!r}", fix=_NEVER_RAISE)
        count(results, 1, f"result for the query {shown(query)!r}", "run")
        answers.append((query, results[0]))
    return answers


def tool_inputs(tool: Unchecked, texts: Iterable[str]) -> list[Unchecked]:
    """Returns what the tool gets for some texts: the texts themselves, or arguments that fit its schema and hold them."""
    schema = schema_of(tool)
    if schema is None:
        return list(texts)
    return [_arguments(schema, text) for text in texts]


def _arguments(schema: Unchecked, text: str) -> dict[str, Unchecked]:
    read = read_arguments(schema, text)
    if not isinstance(read, str):
        return read
    samples: dict[str, Unchecked] = {"string": text, "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    every = {
        name: inner["enum"][0] if "enum" in inner else samples.get(str(inner.get("type")), text)
        for name, inner in schema.get("properties", {}).items()
    }
    read = check_arguments(schema, every)
    return every if isinstance(read, str) else read


def well_formed(query: Unchecked, result: Unchecked) -> None:
    """Breaks the rule unless a result is a `ToolResult` with text and a known error or none."""
    place = f"for {shown(query)!r}"
    expect(
        isinstance(result, ToolResult),
        f"expected a ToolResult {place}, got {type(result).__name__}; wrap it: ToolResult(text).",
    )
    expect(isinstance(result.text, str), f"expected text {place}, got {shown(result.text)}; use str(...).")
    known = result.error is None or result.error in _ERRORS
    expect(known, f"expected the error {place} to be None or one of {', '.join(_ERRORS)}, got {shown(result.error)}.")
    explained = result.error is None or bool(result.text.strip())
    expect(explained, f"expected a sentence with the error {result.error!r} {place}, got no text; tell the policy what is wrong.")
    expect(isinstance(result.data, dict), f"expected a dict as data {place}, got {type(result.data).__name__}.")


RULES = (
    has_tag_description_and_run,
    parameters_are_a_json_schema,
    tag_is_an_xml_name,
    description_is_one_line,
    one_result_per_query,
    results_are_well_formed,
    results_can_be_stored,
    a_batch_equals_singles,
    one_bad_query_spoils_no_other,
    earlier_results_stay_as_they_are,
    survives_hostile_input,
    survives_a_megabyte,
)
GATES = (has_tag_description_and_run, parameters_are_a_json_schema, one_result_per_query, results_are_well_formed)
TWIN_RULES = ()
