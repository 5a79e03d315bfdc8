"""The run folder: nothing acknowledged is lost, nothing half-written is read, and what is read is what was stored."""

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl_env.codec import common_prefix, decode_summary, decode_trajectory, encode_trajectory
from swirl_env.errors import ConfigError, DuplicateKey, StoreError, StoreLocked, SwirlError, UnknownName, VersionError
from swirl_env.filters import FILTERS, process
from swirl_env.store import Store
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
from swirl_env.verdicts import VerdictTable

SETTINGS = Settings(("search_query",), 5)


def episode(task="q0", sample=0, *, ended="answered", correct=True, labels=("GOOD", "GOOD"), seed=0):
    """A small episode: one search a label, the last one the answer."""
    steps = []
    for i, label in enumerate(labels):
        verdict = Verdict("scored", float(label == "GOOD"), label) if label in ("GOOD", "BAD") else Verdict(label)
        if i == len(labels) - 1:
            steps.append(Step(Action("<answer>Oslo</answer>"), Answer("Oslo", 0, 21), None, "", verdict))
        else:
            result = ToolResult(f"Oslo is a city, says {task}.", None, {"ids": ["p1"], "scores": [1.5]})
            call = ToolCall("search_query", "Oslo", 0, 33)
            observation = f"Oslo -> {result.text}"
            steps.append(Step(Action("<search_query>Oslo</search_query>"), call, result, observation, verdict))
    outcome = Outcome("Oslo", correct, float(bool(correct))) if ended == "answered" else Outcome()
    return Trajectory(Task(task, "Where?", "Oslo"), SETTINGS, "Where?", tuple(steps), ended, outcome, sample, seed, "me")


def fill(path, count):
    with Store(path) as store:
        for i in range(count):
            store.append(episode(f"q{i}"))
    return path


def shard(path, number=0):
    return Path(path) / "trajectories" / f"{number:05d}.jsonl"


# Round trips

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ids = st.lists(st.integers(0, 300_000), max_size=8).map(tuple)
finite = st.floats(allow_nan=False, allow_infinity=False)
verdicts = st.builds(
    Verdict,
    st.sampled_from(["scored", "unscored", "failed"]),
    st.none() | finite,
    st.sampled_from([None, "GOOD", "BAD"]),
    st.text(),
    st.text(),
    st.dictionaries(st.text(), finite, max_size=2),
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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": "a\ud800b"}, "surrogate"),
        ({"task": Task("t", "q", meta={"x": float("nan")})}, "JSON would change"),
        ({"task": Task("t", "q", meta={1: "x"})}, "JSON would change"),
        ({"task": Task("t", "q", meta={"x": object()})}, "object"),
        ({"outcome": Outcome("a", True, float("inf"))}, "JSON would change"),
        ({"steps": (Step(Action("a", (1,), (float("-inf"),)), Malformed("no", 0, 1)),)}, "float"),
        ({"steps": (Step(Action("a"), Malformed("no", 0, 1), None, "", Verdict("scored", 1.0, "good")),)}, "'good'"),
        ({"steps": (Step(Action(None), Malformed("no", 0, 1)),)}, "str"),
        ({"ended": "exploded"}, "'exploded'"),
        ({"steps": (None,)}, "action"),
    ],
)
def test_what_would_not_come_back_is_refused_and_leaves_no_trace(tmp_path, change, says):
    with Store(tmp_path) as store:
        store.append(episode("q0"))
        with pytest.raises(StoreError, match="cannot be stored") as caught:
            store.append(msgspec.structs.replace(episode("t"), **change))
        assert says in str(caught.value)
        store.append(episode("q1"))
        assert [t.task.id for t in store] == ["q0", "q1"]


def test_same_episodes_same_bytes(tmp_path):
    one, two = (shard(fill(tmp_path / name, 5)).read_bytes() for name in "ab")
    assert one == two


# Keys, duplicates, errors


def test_keys_and_duplicates(tmp_path):
    store = Store(fill(tmp_path, 3))
    assert store.keys() == {("q0", 0), ("q1", 0), ("q2", 0)} and len(store) == 3
    assert ("q1", 0) in store and ("q1", 1) not in store
    assert store.get(("q1", 0)) == episode("q1")
    with pytest.raises(KeyError):
        store.get(("q1", 1))
    with pytest.raises(DuplicateKey, match="'q1', sample 0"):
        store.append(episode("q1"))
    store.append(episode("q1", 1))
    assert ("q1", 1) in store and len(store) == 4


def test_an_error_waits_to_be_replaced(tmp_path):
    with Store(tmp_path) as store:
        store.append(episode("q0", ended="error"))
        store.append(episode("q1"))
        store.append(episode("q0", ended="error", seed=1))
        assert store.keys() == {("q1", 0)} and store.keys(errors=True) == {("q0", 0), ("q1", 0)}
        assert ("q0", 0) not in store
        assert [(t.task.id, t.seed) for t in store] == [("q1", 0), ("q0", 1)]
    again = Store(tmp_path)
    again.append(episode("q0"))
    assert again.keys() == {("q0", 0), ("q1", 0)}
    assert [(t.task.id, t.ended) for t in again] == [("q1", "answered"), ("q0", "answered")]
    assert len(again) == 2 and len(shard(tmp_path).read_bytes().splitlines()) == 4
    with pytest.raises(DuplicateKey):
        again.append(episode("q0", ended="error"))


def test_a_second_line_of_one_key_is_named(tmp_path):
    file = shard(fill(tmp_path, 2))
    file.write_bytes(file.read_bytes() * 2)
    with pytest.raises(DuplicateKey, match=r"00000\.jsonl, line 3 holds task 'q0'"):
        Store(tmp_path).keys()


def test_shards_roll_over(tmp_path):
    size = len(encode_trajectory(episode("q0")))
    for start in (0, 3):
        with Store(tmp_path, shard_bytes=2 * size) as store:
            for i in range(start, start + 3):
                store.append(episode(f"q{i}"))
    assert [len(file.read_bytes()) // size for file in sorted((tmp_path / "trajectories").iterdir())] == [2, 2, 2]
    assert [t.task.id for t in Store(tmp_path)] == [f"q{i}" for i in range(6)]


# Torn, damaged, foreign


def test_cut_at_any_byte_loses_only_the_last(tmp_path):
    file = shard(fill(tmp_path, 3))
    whole = file.read_bytes()
    last = whole.rfind(b"\n", 0, -1) + 1
    for cut in {last, last + 1, *range(last + 1, len(whole), 37), len(whole) - 1}:
        file.write_bytes(whole[:cut])
        store = Store(tmp_path)
        assert [t.task.id for t in store] == ["q0", "q1"] and store.keys() == {("q0", 0), ("q1", 0)}
        assert file.read_bytes() == whole[:cut], "reading mends nothing"
        store.append(episode("q2"))
        store.close()
        assert file.read_bytes() == whole


def test_a_torn_tail_longer_than_a_block_is_cut(tmp_path):
    file = shard(fill(tmp_path, 1))
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"v":1,"key":["' + b"x" * (2 << 20))
    Store(tmp_path).append(episode("q1"))
    assert [t.task.id for t in Store(tmp_path)] == ["q0", "q1"]


@pytest.mark.parametrize(
    "damage", [b"\0" * 40, b"not json", b"", b"[1]", b'{"v":1,"key":["q1",0],"task":{}}', b'{"v":1}', b"\xff\xfe"]
)
def test_a_damaged_line_is_named(tmp_path, damage):
    file = shard(fill(tmp_path, 3))
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([lines[0], damage, lines[2]]) + b"\n")
    with pytest.raises(StoreError, match=r"00000\.jsonl, line 2 is damaged"):
        list(Store(tmp_path))
    with pytest.raises(StoreError, match=r"00000\.jsonl, line 2 is damaged"):
        Store(tmp_path).filter("process")


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


@pytest.mark.parametrize(
    ("found", "says"), [(b'"v":2', "pip install -U swirl-env"), (b'"v":0', "convert"), (b'"w":1', "no version")]
)
def test_a_foreign_version_says_what_to_do(tmp_path, found, says):
    file = shard(fill(tmp_path, 2))
    file.write_bytes(file.read_bytes().replace(b'"v":1', found))
    for use in (list, len, Store.keys, lambda store: store.append(episode("q9"))):
        with pytest.raises(VersionError, match=r"line 1: .*schema version 1") as caught:
            use(Store(tmp_path))
        assert says in str(caught.value)
    with pytest.raises(VersionError, match="got version 7"):
        Store(tmp_path / "new").append(msgspec.structs.replace(episode(), version=7))


# One writer, many readers


def test_one_writer_at_a_time(tmp_path):
    code = "import sys; from swirl_env.store import Store; s = Store(sys.argv[1]); s.lock(); print('ok', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(fill(tmp_path, 1))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "ok\n"
        with pytest.raises(StoreLocked, match="Another process is writing"):
            Store(tmp_path).append(episode("q1"))
        assert len(Store(tmp_path, mode="r")) == len(Store(tmp_path)) == 1
        assert [t.task.id for t in Store(tmp_path).select("process")] == ["q0"]
        other.communicate("\n")
    Store(tmp_path).append(episode("q1"))


def test_one_writer_within_a_process(tmp_path):
    first = Store(tmp_path)
    first.append(episode("q0"))
    with pytest.raises(StoreLocked, match="This process"):
        Store(tmp_path).append(episode("q1"))
    first.append(episode("q1"))
    del first  # a store that nobody holds any more holds no lock
    Store(tmp_path).append(episode("q2"))
    assert len(Store(tmp_path)) == 3


def _append_in_child(store, queue):
    try:
        store.append(episode("child"))
    except StoreError as error:
        queue.put(str(error))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_write(tmp_path):
    store = Store(tmp_path)
    store.append(episode("q0"))
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=_append_in_child, args=(store, queue))
    child.start()
    assert "forked" in queue.get(timeout=30)
    child.join()
    store.append(episode("q1"))
    with pytest.raises(StoreLocked):
        Store(tmp_path).lock()
    assert len(store) == 2


def test_a_reader_keeps_to_what_there_was(tmp_path):
    store = Store(fill(tmp_path, 2))
    reading = iter(Store(tmp_path, mode="r"))
    assert next(reading).task.id == "q0"
    store.append(episode("q2"))
    assert [t.task.id for t in reading] == ["q1"]
    assert len(Store(tmp_path, mode="r")) == 3


def test_reading_only(tmp_path):
    with pytest.raises(StoreError, match="no run folder"):
        Store(tmp_path / "absent", mode="r")
    with pytest.raises(ConfigError, match="mode"):
        Store(tmp_path, mode="w")
    store = Store(fill(tmp_path, 1), mode="r")
    for write in (store.append, lambda t: store.append_metrics(x=1), lambda t: store.save(store.filter("none"))):
        with pytest.raises(StoreError, match="reading only"):
            write(episode("q1"))
    assert len(list(store.select("none"))) == 1 and not list((tmp_path / "selections").iterdir())
    assert len(Store(tmp_path / "absent")) == 0 and not (tmp_path / "absent").exists()


# Kills and full disks

APPEND = """
import sys
from msgspec.structs import replace
from swirl_env.codec import decode_trajectory
from swirl_env.store import Store
one = decode_trajectory(sys.stdin.buffer.read())
with Store(sys.argv[1], shard_bytes=200_000) as store:
    done = store.keys()
    for i in range(int(sys.argv[2])):
        if (f"q{i}", 0) not in done:
            store.append(replace(one, task=replace(one.task, id=f"q{i}")))
            print(i, flush=True)
"""


def start_appending(folder, count, limit=None):
    """Starts a process that stores episodes q0, q1, ... and prints the number of each that was acknowledged."""

    def bound():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", APPEND, str(folder), str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, preexec_fn=bound if limit else None)
    process.stdin.write(encode_trajectory(episode()))
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_random_moments_nothing_acknowledged_is_lost(tmp_path, blow):
    kills = int(os.environ.get("SWIRL_TEST_KILLS", "3"))
    run, count, rng = tmp_path / "run", 2_000 * kills, random.Random(int(blow))
    for _ in range(kills):
        before = len(Store(run))
        with start_appending(run, count) as process:
            output = process.stdout.readline()
            time.sleep(rng.random() * 0.05)
            process.send_signal(blow)
            output += process.stdout.read()
        told = {(f"q{line}", 0) for line in output.decode().split("\n")[:-1]}
        keys = Store(run, mode="r").keys()
        assert told <= keys
        assert len(keys) - before <= len(told) + 1, "more than the episode in flight was stored without a word"
        assert [t.task.id for t in Store(run)] == [f"q{i}" for i in range(len(keys))]
    process = start_appending(run, count)
    process.communicate()
    assert process.returncode == 0
    joined = b"".join(file.read_bytes() for file in sorted((run / "trajectories").iterdir()))
    tasks = [msgspec.structs.replace(episode().task, id=f"q{i}") for i in range(count)]
    assert joined == b"".join(encode_trajectory(msgspec.structs.replace(episode(), task=task)) for task in tasks)


def test_a_full_disk_takes_back_what_does_not_fit(tmp_path):
    run = tmp_path / "run"
    size = len(encode_trajectory(episode("q0")))
    process = start_appending(run, 100, limit=int(size * 7.5))  # file size limit: write() writes a part, then fails
    output, errors = process.communicate()
    assert process.returncode == 1 and b"StoreError" in errors and b"not stored" in errors and b"resume" in errors
    told = len(output.split())
    assert told == 7
    assert shard(run).read_bytes().endswith(b"}\n")
    assert [t.task.id for t in Store(run)] == [f"q{i}" for i in range(told)]
    process = start_appending(run, 20)
    process.communicate()
    assert process.returncode == 0 and len(Store(run)) == 20


def test_a_write_that_fails_leaves_the_store_usable(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append(episode("q0"))
    real, calls = os.write, []

    def half(fd, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(fd, bytes(data[: len(data) // 2]))

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StoreError, match="No space left on device"):
        store.append(episode("q1"))
    monkeypatch.setattr(os, "write", real)
    assert [t.task.id for t in store] == ["q0"]
    store.append(episode("q1"))
    assert [t.task.id for t in store] == ["q0", "q1"]


def test_an_interrupt_between_file_and_index_is_no_duplicate(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append(episode("q0"))
    real = os.write

    def interrupted(fd, data):
        real(fd, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.append(episode("q1"))
    monkeypatch.setattr(os, "write", real)
    store.append(episode("q1"))
    assert [t.task.id for t in store] == ["q0", "q1"]


def test_an_interrupt_while_judging_is_no_duplicate(tmp_path, monkeypatch):
    store = Store(fill(tmp_path, 2))
    store.append_verdicts("j", ("q0", 0), [Verdict.good(), Verdict.good()])

    def interrupted(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(VerdictTable, "_note", interrupted)
        store.append_verdicts("j", ("q1", 0), [Verdict.good(), Verdict.good()])
    with pytest.raises(DuplicateKey):
        store.append_verdicts("j", ("q1", 0), [Verdict.good(), Verdict.good()])
    assert set(Store(tmp_path, mode="r").verdicts("j")) == {("q0", 0), ("q1", 0)}


def test_a_tail_that_could_not_be_taken_back_is_cut_before_the_next_record(tmp_path, monkeypatch):
    with Store(tmp_path) as store:
        store.append_metrics(step=1)
        real = os.write

        def half(fd, data):
            if len(data) < 5:
                raise OSError(28, "No space left on device")
            return real(fd, bytes(data[:-3]))

        def refuse(fd, size):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as broken:
            broken.setattr(os, "write", half)
            broken.setattr(os, "ftruncate", refuse)
            with pytest.raises(StoreError, match="No space left"):
                store.append_metrics(step=2)
        assert not (tmp_path / "metrics.jsonl").read_bytes().endswith(b"\n")
        store.append_metrics(step=3)
        assert list(store.metrics()) == [{"step": 1}, {"step": 3}]


def test_reading_takes_the_memory_of_one_episode(tmp_path):
    text = "a passage of some length " * 800  # 20 kB an episode, 10 MB in all
    with Store(tmp_path) as store:
        for i in range(500):
            store.append(msgspec.structs.replace(episode(f"q{i}"), prompt=text))
    tracemalloc.start()
    try:
        assert sum(1 for _ in Store(tmp_path)) == 500
        assert Store(tmp_path).filter("process").kept == 500
        assert sum(1 for _ in Store(tmp_path).with_verdicts(None)) == 500
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000, "1 MB of read buffer, one episode, the keys"


# Verdict tables


def test_judging_again_adds_a_table(tmp_path):
    bad, good = Verdict.bad("no", "llm"), Verdict.good("yes", "llm", 0.5)
    with Store(fill(tmp_path, 3)) as store:
        before = shard(tmp_path).read_bytes()
        store.append_verdicts("llm-ab12", ("q0", 0), [bad, good])
        store.append_verdicts("llm-ab12", ("q1", 0), [Verdict.failed("server away", "llm"), good])
        table = store.verdicts("llm-ab12")
        assert table.judged() == {("q0", 0)} and len(table) == 2 and ("q2", 0) not in table
        with pytest.raises(DuplicateKey, match="judged task 'q0'"):
            store.append_verdicts("llm-ab12", ("q0", 0), [good, good])
        store.append_verdicts("llm-ab12", ("q1", 0), [good, good])
        assert store.verdicts("llm-ab12").judged() == {("q0", 0), ("q1", 0)}
        assert shard(tmp_path).read_bytes() == before
    store = Store(tmp_path, mode="r")
    assert store.judges() == ["llm-ab12"]
    assert dict(store.verdicts("llm-ab12")) == {("q0", 0): (bad, good), ("q1", 0): (good, good)}
    seen = {t.task.id: [step.verdict for step in t.steps] for t in store.with_verdicts("llm-ab12")}
    assert seen == {"q0": [bad, good], "q1": [good, good], "q2": [Verdict.unscored()] * 2}
    assert list(store.with_verdicts(None)) == [episode(f"q{i}") for i in range(3)]
    assert store.filter("process", "llm-ab12").keys == (("q1", 0),)
    assert store.filter(lambda t: process(t), "llm-ab12").keys == (("q1", 0),)
    assert store.filter("process", "llm-ab12").excluded == {"bad step": 1, "unscored step": 1}
    with pytest.raises(UnknownName, match="llm-ab12"):
        list(store.with_verdicts("llm-ab13"))


def test_verdicts_need_an_episode_and_a_line_that_holds_them(tmp_path):
    store = Store(fill(tmp_path, 1))
    store.append(episode("q1", ended="error"))
    for key in (("q1", 0), ("q7", 0)):
        with pytest.raises(StoreError, match="no finished episode"):
            store.append_verdicts("j", key, [Verdict.good()])
    for reward in (float("nan"), "1"):
        with pytest.raises(StoreError, match="cannot be stored"):
            store.append_verdicts("j", ("q0", 0), [Verdict("scored", reward, "GOOD")])
    store.append_verdicts("j", ("q0", 0), [Verdict.good()])
    with pytest.raises(StoreError, match="1 verdicts on task 'q0', sample 0, which has 2 steps"):
        list(store.with_verdicts("j"))


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b", "a\0b", "ä" * 3, "x" * 300])
def test_names_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(ConfigError, match="names a file"):
        Store(tmp_path).verdicts(name)


def test_a_torn_verdict_is_cut(tmp_path):
    with Store(fill(tmp_path, 2)) as store:
        for i in range(2):
            store.append_verdicts("j", (f"q{i}", 0), [Verdict.good(), Verdict.good()])
    file = tmp_path / "verdicts" / "j.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    assert set(Store(tmp_path).verdicts("j")) == {("q0", 0)}
    with Store(tmp_path) as store:
        store.append_verdicts("j", ("q1", 0), [Verdict.good(), Verdict.good()])
    assert file.read_bytes() == whole
    file.write_bytes(whole.replace(b'"v":1', b'"v":9'))
    with pytest.raises(VersionError, match=r"j\.jsonl, line 1"):
        Store(tmp_path).verdicts("j")


# Selections, config, metrics


def test_a_selection_is_followed_until_the_store_grows(tmp_path):
    store = Store(tmp_path)
    for i in range(10):
        store.append(episode(f"q{i}", correct=i % 2 == 0, labels=("GOOD", "BAD" if i == 0 else "GOOD")))
    assert [t.task.id for t in store.select("both")] == ["q2", "q4", "q6", "q8"]
    raw = json.loads((tmp_path / "selections" / "both.json").read_text())
    assert raw["excluded"] == {"bad step": 1, "wrong answer": 5} and raw["total"] == 10 and len(raw["keys"]) == 4
    store.save(store.filter("both", limit=2, seed=3))
    chosen = [t.task.id for t in store.select("both")]
    assert len(chosen) == 2 and chosen == [t.task.id for t in Store(tmp_path, mode="r").select("both")]
    store.append(episode("q10"))
    assert len([t.task.id for t in store.select("both")]) == 2, "the limit stays"
    assert store.selection("both").total == 11
    assert store.selection("outcome") is None
    assert [t.task.id for t in store.select(lambda t: t.task.id == "q3")] == ["q3"]
    foreign = msgspec.structs.replace(store.selection("both"), keys=(("q99", 0),))
    with pytest.raises(StoreError, match="another run"):
        list(store.select(foreign))
    (tmp_path / "selections" / "both.json").write_text("{")
    with pytest.raises(StoreError, match=r"both\.json is no selection"):
        list(store.select("both"))
    with pytest.raises(UnknownName, match="process"):
        list(store.select("proces"))


def test_config_and_metrics(tmp_path):
    store = Store(tmp_path)
    assert store.config() == "" and list(store.metrics()) == []
    store.write_config("seed: 1\nname: Ærø\n")
    store.append_metrics(step=1, loss=0.5)
    store.append_metrics(step=2, loss=0.25)
    store.close()
    assert Store(tmp_path).config() == "seed: 1\nname: Ærø\n"
    assert list(Store(tmp_path).metrics()) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
