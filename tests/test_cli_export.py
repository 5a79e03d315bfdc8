"""`swirl export`: every format, the rows that trainers read, and mistakes."""

import json
import re

import pytest

from fakes import CallJudge, EchoAgent, EchoTool, SumTasks
from swirl_env.env import build_engine
from swirl_env.rollout import collect
from swirl_env.store import Store
from swirl_env.types import Action, Verdict


class Undecided(EchoAgent):
    """Answers in the first step of odd samples, which CallJudge likes less than a call."""

    def _one(self, state):
        return Action("<answer>3</answer>") if state.seed % 2 else super()._one(state)


def make_run(path, agent=None, samples=1):
    engine = build_engine(SumTasks(10), tools=[EchoTool()], judge=CallJudge())
    with Store(path) as store:
        for trajectory in collect(agent or EchoAgent(), engine, 10 * samples, 4, samples=samples):
            store.append(trajectory)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sft_rows_are_the_conversations(swirl, tmp_path):
    make_run("run")
    code, out, _ = swirl("export", "run", "to=sft")
    assert code == 0 and "10 rows in" in out
    for row, trajectory in zip(rows(tmp_path / "run-sft.jsonl"), Store("run", "r"), strict=True):
        assert list(row) == ["messages"] and [m["role"] for m in row["messages"]][:2] == ["user", "assistant"]
        assert sum(m["role"] == "assistant" for m in row["messages"]) == len(trajectory.steps)


def test_dpo_rows_are_two_actions_at_one_state_rated_differently(swirl, tmp_path):
    make_run("run", Undecided(), samples=6)
    assert swirl("export", "run", "to=dpo", "out=pairs.jsonl")[0] == 0
    states = {}
    for trajectory in Store("run", "r"):
        first = trajectory.steps[0]
        states.setdefault(trajectory.prompt, {})[first.action.text[: first.call.end]] = first.verdict.reward
    pairs = [row for row in rows(tmp_path / "pairs.jsonl") if len(row["prompt"]) == 1]
    assert pairs and len(pairs) == sum(len(set(rewards.values())) > 1 for rewards in states.values())
    for row in pairs:
        rewards = states[row["prompt"][0]["content"]]
        assert rewards[row["chosen"][0]["content"]] > rewards[row["rejected"][0]["content"]]


def test_prm_rows_end_before_the_first_step_without_a_label(swirl, tmp_path):
    make_run("run")
    with Store("run") as store:
        for trajectory in list(store):
            verdicts = [Verdict.good() if i < 1 else Verdict.failed("away") for i in range(len(trajectory.steps))]
            store.append_verdicts("part-1", trajectory.key, verdicts)
    assert swirl("export", "run", "to=prm", "verdicts=part-1")[0] == 0
    for row in rows(tmp_path / "run-prm.jsonl"):
        assert row["labels"] == [True] and len(row["completions"]) == 1
    assert swirl("export", "run", "to=prm", "out=whole.jsonl")[0] == 0
    assert {len(row["labels"]) for row in rows(tmp_path / "whole.jsonl")} == {len(t.steps) for t in Store("run", "r")}


TURN = {"role": "string", "content": "string"}
COLUMNS = {
    "sft": {"messages": [TURN]},
    "dpo": {"prompt": [TURN], "chosen": [TURN], "rejected": [TURN]},
    "prm": {"prompt": "string", "completions": ["string"], "labels": ["bool"]},
}
"""What TRL's documentation asks of conversational language modelling, preferences and stepwise supervision."""


def plain(feature):
    """Returns a column's type as names in lists and mappings."""
    if isinstance(feature, dict):
        return {name: plain(inner) for name, inner in feature.items()}
    inner = getattr(feature, "feature", None)
    return feature.dtype if inner is None else [plain(inner)]


@pytest.mark.parametrize("name", COLUMNS)
def test_the_columns_are_those_that_trl_documents(swirl, tmp_path, name):
    datasets = pytest.importorskip("datasets")
    make_run("run", Undecided(), samples=6)
    assert swirl("export", "run", f"to={name}", "out=rows.jsonl")[0] == 0
    table = datasets.Dataset.from_json(str(tmp_path / "rows.jsonl"), cache_dir=str(tmp_path / "cache"))
    assert plain(dict(table.features)) == COLUMNS[name]
    for row in table if name == "dpo" else ():
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant" and row["prompt"][-1]["role"] != "assistant"
    for row in table if name == "prm" else ():
        assert len(row["completions"]) == len(row["labels"]) > 0


@pytest.mark.parametrize(
    ("name", "file"), [("chat", "run-chat.jsonl"), ("parquet", "run-episodes.parquet"), ("hf", "run-dataset")]
)
def test_the_other_formats_go_next_to_the_run(swirl, tmp_path, name, file):
    if name != "chat":
        pytest.importorskip("datasets")
    make_run("run")
    before = sorted((tmp_path / "run").rglob("*"))
    code, out, err = swirl("export", "run", f"to={name}")
    assert code == 0 and file in out, err
    assert (tmp_path / file).exists() and sorted((tmp_path / "run").rglob("*")) == before


def test_a_filter_and_a_judges_verdicts_select(swirl, tmp_path):
    make_run("run")
    swirl("export", "run", "to=chat", "filter=outcome")
    right = [trajectory for trajectory in Store("run", "r") if trajectory.outcome.correct]
    assert len(rows(tmp_path / "run-chat.jsonl")) == len(right) == 5


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["export", "run"], "Expected one run folder and a format"),
        (["export", "run", "to=csv"], "No export format named 'csv'.*Known"),
        (["export", "rum", "to=sft"], r"rum is no run folder: it does not exist\. Did you mean run\?"),
        (["export", "run", "to=sft", "filter=proces"], "Did you mean 'process'"),
        (["export", "run", "to=sft", "verdicts=llm"], "No table of verdicts named 'llm'"),
        (["export", "run", "to=hf", "out=full"], "full is a folder that is not empty"),
        (["export", "run", "to=dpo", "out=x.jsonl"], "needs two actions at one state"),
    ],
)
def test_mistakes_are_one_sentence(swirl, tmp_path, argv, sentence):
    make_run("run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    code, _, err = swirl(*argv)
    assert code == 2 and re.search(sentence, err) and err.count("\n") == 1
    assert (tmp_path / "full/mine.txt").read_text() == "mine"
