"""One line a trajectory: whatever is written comes back as it was, and what would not is found."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stored import episode
from swirl_env.errors import SwirlError, VersionError
from swirl_env.sequences import common_prefix
from swirl_env.store.codec import decode_summary, decode_trajectory, encode_trajectory
from swirl_env.store.filters import FILTERS
from swirl_env.types import (
    Action,
    Answer,
    Malformed,
    Outcome,
    PlanStep,
    Settings,
    Step,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Verdict,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ids = st.lists(st.integers(0, 300_000), max_size=8).map(tuple)
finite = st.floats(allow_nan=False, allow_infinity=False)
words = (st.text(), st.text(), st.dictionaries(st.text(), finite, max_size=2))
verdicts = st.builds(Verdict, st.just("scored"), finite, st.sampled_from([None, "GOOD", "BAD"]), *words) | st.builds(
    Verdict, st.sampled_from(["unscored", "failed"]), st.none(), st.none(), *words
)
spans = st.integers(0, 100)
actions = st.builds(Action, st.text(), ids, st.lists(finite, max_size=4).map(tuple), ids, st.integers(0, 1))
results = st.builds(
    ToolResult, st.text(), st.sampled_from([None, "timeout"]), st.dictionaries(st.text(), json_values, max_size=2)
)
steps = st.builds(
    Step,
    actions,
    st.one_of(
        st.builds(ToolCall, st.text(), st.text(), spans, spans),
        st.builds(Answer, st.text(), spans, spans),
        st.builds(Malformed, st.text(), spans, spans),
    ),
    st.none() | results,
    st.text(),
    verdicts,
)
tasks = st.builds(
    Task,
    st.text(),
    st.text(),
    st.none() | st.text(),
    st.lists(st.text(), max_size=2).map(tuple),
    plan=st.lists(st.builds(PlanStep, st.text(), st.text()), max_size=2).map(tuple),
    meta=st.dictionaries(st.text(), json_values, max_size=2),
)
trajectories = st.builds(
    Trajectory,
    tasks,
    st.builds(Settings, st.lists(st.text(), max_size=2).map(tuple), st.integers(1, 9)),
    st.text(),
    st.lists(steps, max_size=4).map(tuple),
    st.sampled_from(["answered", "budget", "length", "error"]),
    st.builds(Outcome, st.none() | st.text(), st.none() | st.booleans(), st.none() | finite),
    st.integers(0, 9),
    st.integers(0, 2**63 - 1),
    st.text(),
)


@given(trajectories)
def test_any_trajectory_comes_back_as_it_was(trajectory):
    line = encode_trajectory(trajectory)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode_trajectory(line) == trajectory
    raw = json.loads(line)
    assert raw["v"] == 1 and raw["key"] == [trajectory.task.id, trajectory.sample]
    assert encode_trajectory(decode_trajectory(line)) == line


@given(trajectories)
def test_filters_read_the_same_from_a_summary(trajectory):
    summary = decode_summary(encode_trajectory(trajectory))
    assert {name: keep(summary) for name, keep in FILTERS.items()} == {name: keep(trajectory) for name, keep in FILTERS.items()}


@given(st.lists(st.integers(0, 1), max_size=30), st.lists(st.integers(0, 1), max_size=30))
def test_common_prefix(a, b):
    differ = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    assert common_prefix(a, b) == min([*differ, len(a), len(b)])


def test_prompt_ids_and_result_texts_are_written_once():
    prompt, text = tuple(range(1000, 2000)), "passage " * 400
    steps, known = [], prompt
    for i in range(4):
        action = Action(f"step {i}", (5000 + i,), (-0.5,), known)
        steps.append(Step(action, Malformed("no", 0, 1), ToolResult(text), f"q{i} -> {text}"))
        known = (*known, 5000 + i, 6000 + i)
    trajectory = msgspec.structs.replace(episode(), steps=tuple(steps))
    line = encode_trajectory(trajectory)
    raw = json.loads(line)
    assert raw["shared"] == [0, 1001, 1003, 1005]
    assert raw["steps"][3]["action"]["prompt_ids"] == [6002]
    assert raw["steps"][3]["observation"] == "q3 -> "
    assert len(line) < 5_000 + 5 * len(prompt) + 4.2 * len(text)
    assert decode_trajectory(line) == trajectory


@given(st.data())
def test_a_changed_byte_is_an_error_or_another_text(data):
    """Whatever a flipped byte does, reading gives a trajectory or one clear error."""
    line = bytearray(encode_trajectory(episode("q0")))
    line[data.draw(st.integers(0, len(line) - 2))] = data.draw(st.integers(0, 255).filter(lambda byte: byte != 10))
    try:
        decode_trajectory(bytes(line))
    except ValueError as error:
        assert str(error)
    except SwirlError as error:
        assert isinstance(error, VersionError)
