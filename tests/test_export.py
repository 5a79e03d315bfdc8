"""Exports: what other tools read is the conversation and its rewards."""

import importlib
import json

import pytest

from swirl_env.errors import MissingExtra, StoreError
from swirl_env.store.codec import decode_trajectory
from swirl_env.store.export import EXPORTS, chat_row
from swirl_env.types import Action, Answer, Outcome, Settings, Step, Task, ToolCall, ToolResult, Trajectory, Verdict


def episode(task="q0", history="full"):
    search = "Hm \0 é. <search_query>Oslo</search_query> and more"
    end = search.index(" and more")
    steps = (
        Step(Action(search), ToolCall("search_query", "Oslo", 8, end), ToolResult("A city."), "Oslo -> A city.", Verdict.good()),
        Step(Action("<answer>Oslo</answer>"), Answer("Oslo", 0, 21), None, "", Verdict.failed("away")),
    )
    settings = Settings(("search_query",), 5, history=history)
    return Trajectory(Task(task, "Where?", "Oslo"), settings, "Where?", steps, "answered", Outcome("Oslo", True, 1.0), 2, 7, "me")


def test_a_row_is_the_conversation_as_the_policy_saw_it():
    row = chat_row(episode())
    assert row["messages"] == [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "Hm \0 é. <search_query>Oslo</search_query>"},
        {"role": "tool", "content": "Oslo -> A city."},
        {"role": "assistant", "content": "<answer>Oslo</answer>"},
    ]
    assert row["rewards"] == [1.0, None] and row["labels"] == ["GOOD", None]
    assert (row["task_id"], row["sample"], row["correct"], row["gold"], row["ended"]) == ("q0", 2, True, "Oslo", "answered")
    assert chat_row(episode(history="calls"))["messages"][1]["content"] == "<search_query>Oslo</search_query>"
    nothing = Trajectory(Task("t", "?"), Settings((), 5), "prompt", (), "length", Outcome())
    assert chat_row(nothing)["messages"] == [{"role": "user", "content": "prompt"}]


def test_chat_jsonl(tmp_path):
    episodes = [episode(f"q{i}") for i in range(3)]
    assert EXPORTS["chat"](iter(episodes), tmp_path / "new" / "chat.jsonl") == 3
    rows = [json.loads(line) for line in (tmp_path / "new" / "chat.jsonl").read_text().splitlines()]
    assert rows == [chat_row(t) for t in episodes]


def test_an_export_that_fails_leaves_nothing(tmp_path):
    def broken():
        yield episode()
        raise StoreError("line 2 is damaged")

    with pytest.raises(StoreError, match="damaged"):
        EXPORTS["chat"](broken(), tmp_path / "chat.jsonl")
    assert not list(tmp_path.iterdir())


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    episodes = [episode(f"q{i}") for i in range(5)]
    assert EXPORTS["parquet"](iter(episodes), tmp_path / "run.parquet") == 5
    rows = parquet.read_table(tmp_path / "run.parquet").to_pylist()
    assert [decode_trajectory(row.pop("record").encode()) for row in rows] == episodes
    assert rows == [chat_row(t) for t in episodes]
    assert EXPORTS["parquet"](iter(()), tmp_path / "none.parquet") == 0
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


@pytest.mark.slow
def test_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    assert EXPORTS["dataset"]((episode(f"q{i}") for i in range(5)), tmp_path / "set") == 5
    made = datasets.load_from_disk(str(tmp_path / "set"))
    assert made.num_rows == 5 and made[3]["messages"] == chat_row(episode())["messages"] and made[3]["task_id"] == "q3"


@pytest.mark.parametrize(("format", "package"), [("parquet", "pyarrow"), ("dataset", "datasets")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, format, package):
    real = importlib.import_module

    def without(name, *rest):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtra, match=rf"'{package}'.*pip install 'swirl-env\[train\]'"):
        EXPORTS[format]([episode()], tmp_path / "x")
    assert not list(tmp_path.iterdir())
