"""The contract of tools with state: what holds of every session, and what one session may never see of another."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from swirl_env.contract.rules import (
    HOSTILE,
    HUGE,
    PLAIN,
    Unchecked,
    attempt,
    count,
    expect,
    first_difference,
    random_texts,
    shown,
    storable,
)
from swirl_env.contract.samples import tasks
from swirl_env.contract.tools import (
    description_is_one_line,
    parameters_are_a_json_schema,
    tag_is_an_xml_name,
    tool_inputs,
    well_formed,
)
from swirl_env.protocols import ForkableSession

SEED = 7
_NEVER_RAISE = "a session never raises for bad input: return ToolResult(text, error='invalid')"


def has_tag_description_and_open(tool: Unchecked) -> None:
    """Has `tag`, `description` and `open`, which returns an object with `run` and `close`."""
    for name, kind in (("tag", str), ("description", str)):
        value = getattr(tool, name, None)
        expect(isinstance(value, kind), f"expected a text `{name}`, got {shown(value)}; set it on {type(tool).__name__}.")
    session = _open(tool)
    for name in ("run", "close"):
        expect(callable(getattr(session, name, None)), f"expected a method `{name}` on a session, got none; add it.")
    session.close()


def one_result_per_query(tool: Unchecked) -> None:
    """A session gives one result per query, none for an empty batch."""
    session, queries = _open(tool), tool_inputs(tool, PLAIN)
    count(attempt(session.run, [], given="an empty batch", fix="return []"), 0, "results for an empty batch", "run")
    results = attempt(session.run, queries, given=f"{len(queries)} queries", fix=_NEVER_RAISE)
    count(results, len(queries), f"results for {len(queries)} queries", "run")
    session.close()


def a_batch_equals_singles(tool: Unchecked) -> None:
    """A batch of queries gives what the same queries give one by one, in their order."""
    queries = tool_inputs(tool, [*PLAIN, PLAIN[0]])
    batch, single = _open(tool), _open(tool)
    _same(queries, batch.run(list(queries)), _each(single, queries), "single calls")
    batch.close()
    single.close()


def equal_episodes_give_equal_results(tool: Unchecked) -> None:
    """Two sessions of one task and seed give the same results for the same queries, one after the other or in turns."""
    queries = tool_inputs(tool, PLAIN)
    first, second, third = _open(tool), _open(tool), _open(tool)
    alone = _each(first, queries)
    turns = [(second.run([query])[0], third.run([query])[0]) for query in queries]
    _same(queries, alone, [a for a, _ in turns], "a session next to another one")
    _same(queries, alone, [b for _, b in turns], "another session of the same episode")
    for session in (first, second, third):
        session.close()


def sessions_are_isolated(tool: Unchecked) -> None:
    """What is done in one session, also one that was closed, never shows in another."""
    early, late = tool_inputs(tool, PLAIN[:3]), tool_inputs(tool, PLAIN[3:])
    clean = _open(tool)
    wanted = _each(clean, late)
    clean.close()
    other, session = _open(tool, 1), _open(tool)
    _each(other, early)
    results = _each(session, late)
    _same(late, wanted, results, "a session that began after others had been used")
    other.close()
    session.close()
    after = _open(tool)
    _same(late, wanted, _each(after, late), "a session that began after another was closed")
    after.close()


def a_fork_goes_its_own_way(tool: Unchecked) -> None:
    """If a session has `fork`, the fork knows what came before, and neither sees what the other does after."""
    session = _open(tool)
    if not isinstance(session, ForkableSession):
        session.close()
        return
    before, mine, theirs = (tool_inputs(tool, PLAIN[i : i + 2]) for i in (0, 2, 4))
    wanted = _open(tool)
    _each(wanted, before)
    expected = _each(wanted, theirs)
    wanted.close()
    _each(session, before)
    fork = attempt(session.fork, given="a session in use", fix="return a session in the same state")
    _each(session, mine)
    _same(theirs, expected, _each(fork, theirs), "a fork, after its origin went on,")
    session.close()
    another = tool_inputs(tool, PLAIN[:1])
    count(attempt(fork.run, another, given="a fork whose origin is closed", fix="copy what it needs"), 1, "result", "run")
    fork.close()


def closing_is_final_and_harmless(tool: Unchecked) -> None:
    """Closing works unused and used, twice too, and a session does nothing after it but answer with an error or as new."""
    for queries in ((), tool_inputs(tool, PLAIN[:2])):
        session = _open(tool)
        _each(session, queries)
        attempt(session.close, given="a session", fix="free what it holds")
        attempt(session.close, given="a closed session", fix="do nothing the second time")


def earlier_results_stay_as_they_are(tool: Unchecked) -> None:
    """A result does not change when the session goes on: its data is a copy of what the session keeps."""
    session, queries = _open(tool), tool_inputs(tool, PLAIN)
    results = session.run(queries[:1])
    before = msgspec.json.encode(results[0])
    _each(session, queries[1:])
    session.close()
    same = msgspec.json.encode(results[0]) == before
    expect(same, "expected an earlier result unchanged after later calls, got another; copy lists before returning them as data.")


def survives_hostile_input(tool: Unchecked) -> None:
    """Never raises: empty, NUL, surrogates, markup, code, nesting, any Unicode, a megabyte; results can be stored."""
    session = _open(tool)
    for query in tool_inputs(tool, [*HOSTILE, *random_texts(20), *HUGE]):
        (result,) = attempt(session.run, [query], given=f"the query {shown(query)!r}", fix=_NEVER_RAISE)
        well_formed(query, result)
        why = storable(result)
        lone = isinstance(query, str) and storable(query) is not None
        expect(why is None or lone, f"expected JSON values for {shown(query)!r}, but {why}; convert them.")
    session.close()


def _open(tool: Unchecked, index: int = 0) -> Unchecked:
    fix = "return an object with run and close"
    return attempt(tool.open, tasks()[index], SEED + index, given="a task and a seed", fix=fix)


def _each(session: Unchecked, queries: Sequence[Unchecked]) -> list[Unchecked]:
    return [attempt(session.run, [query], given=f"the query {shown(query)!r}", fix=_NEVER_RAISE)[0] for query in queries]


def _same(queries: Sequence[Unchecked], wanted: Sequence[Unchecked], results: Sequence[Unchecked], who: str) -> None:
    at = first_difference(wanted, results)
    if at is not None:
        a, b = shown(wanted[at]), shown(results[at])
        expect(False, f"expected {who} to give {a} for {shown(queries[at])!r}, got {b}; keep state in the session alone.")


RULES = (
    has_tag_description_and_open,
    parameters_are_a_json_schema,
    tag_is_an_xml_name,
    description_is_one_line,
    one_result_per_query,
    a_batch_equals_singles,
    equal_episodes_give_equal_results,
    sessions_are_isolated,
    a_fork_goes_its_own_way,
    closing_is_final_and_harmless,
    earlier_results_stay_as_they_are,
    survives_hostile_input,
)
GATES = (has_tag_description_and_open, parameters_are_a_json_schema, one_result_per_query)
TWIN_RULES = ()
