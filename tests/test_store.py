"""The run folder: nothing half-written is read, and what is read is what was stored; verdict tables, selections."""

import json
import tracemalloc

import msgspec
import numpy as np
import pytest

from stored import episode, fill, shard
from swirl_env.errors import ConfigError, DuplicateKey, StoreError, UnknownName, VersionError
from swirl_env.store import Store
from swirl_env.store.codec import encode_trajectory
from swirl_env.store.filters import process
from swirl_env.types import Action, Malformed, Outcome, Step, Task, ToolCall, ToolResult, Verdict

# Records, keys, duplicates


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": "a\ud800b"}, "prompt holds the lone surrogate '\\ud800'"),
        ({"task": Task("t", "q", meta={"x": float("nan")})}, "task.meta.x is nan"),
        ({"task": Task("t", "q", meta={1: "x"})}, "task.meta has the key 1"),
        ({"task": Task("t", "q", meta={"x": object()})}, "task.meta.x is an object of type object"),
        ({"outcome": Outcome("a", True, float("inf"))}, "outcome.f1 is inf"),
        ({"steps": (Step(Action("a", (1,), (float("-inf"),)), Malformed("no", 0, 1)),)}, "steps[0].action.logprobs[0] is -inf"),
        ({"steps": (Step(Action("a"), Malformed("\udfff", 0, 1)),)}, "steps[0].call.reason holds the lone surrogate"),
        ({"steps": (Step(Action("a"), Malformed("no", 0, 1), None, "", Verdict("scored", 1.0, "good")),)}, "'good'"),
        ({"steps": (Step(Action(None), Malformed("no", 0, 1)),)}, "str"),
        ({"ended": "exploded"}, "'exploded'"),
        ({"steps": (None,)}, "steps[0]"),
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


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(2.5), 2.5),
        ((1, (2,)), [1, [2]]),
        ({"x": [np.int32(1)]}, {"x": [1]}),
    ],
    ids=str,
)
def test_numbers_of_numpy_are_stored_as_plain_ones(tmp_path, value, plain):
    whole = episode("t")
    result = ToolResult("text", None, {"value": value})
    step = Step(Action("a", (np.int64(3),), (np.float32(-0.5),)), ToolCall("search_query", "q", 0, 1), result)
    change = {"task": Task("t", "q", meta={"value": value}), "steps": (step,), "seed": np.int64(5)}
    with Store(tmp_path) as store:
        store.append(msgspec.structs.replace(whole, **change))
    (stored,) = Store(tmp_path)
    assert stored.task.meta == stored.steps[0].result.data == {"value": plain} and stored.seed == 5
    assert (stored.steps[0].action.token_ids, stored.steps[0].action.logprobs) == ((3,), (-0.5,))


@pytest.mark.parametrize(
    "value", [float("nan"), np.float64("inf"), np.float32("nan"), np.array([1.0, float("nan")]), 1j, object()]
)
def test_what_no_conversion_can_keep_is_refused_by_name(tmp_path, value):
    with Store(tmp_path) as store, pytest.raises(StoreError, match=r"cannot be stored: task\.meta\.deep\[0\]"):
        store.append(msgspec.structs.replace(episode("t"), task=Task("t", "q", meta={"deep": [value]})))
    assert len(Store(tmp_path)) == 0


def test_same_episodes_same_bytes(tmp_path):
    one, two = (shard(fill(tmp_path / name, 5)).read_bytes() for name in "ab")
    assert one == two


def test_keys_and_duplicates(tmp_path):
    store = Store(fill(tmp_path, 3))
    assert store.keys() == {("q0", 0), ("q1", 0), ("q2", 0)} and len(store) == 3
    assert ("q1", 0) in store and ("q1", 1) not in store
    assert store.get(("q1", 0)) == episode("q1")
    with pytest.raises(KeyError):
        store.get(("q1", 1))
    with pytest.raises(DuplicateKey, match="'q1', sample 0"):
        store.append(episode("q1"), 0)
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
        again.append(episode("q0", ended="error"), sample=0)


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


def test_reading_takes_the_memory_of_one_episode(tmp_path):
    text = "a passage of some length " * 800  # 20 kB an episode, 10 MB in all
    with Store(tmp_path) as store:
        for i in range(500):
            store.append(msgspec.structs.replace(episode(f"q{i}"), prompt=text))
    tracemalloc.start()
    try:
        assert sum(1 for _ in Store(tmp_path)) == 500
        assert Store(tmp_path).filter("process").size == 500
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


# Selections, config


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


def test_the_configuration_is_text_as_it_was_written(tmp_path):
    store = Store(tmp_path)
    assert store.config() == ""
    store.write_config("seed: 1\nname: Ærø\n")
    store.close()
    assert Store(tmp_path).config() == "seed: 1\nname: Ærø\n"
