"""The judges that are made of other judges: the weighted sum and the cache on disk."""

import multiprocessing
import pickle
import sqlite3
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swirl_env.episodes.transcript import initial_state, next_state
from swirl_env.errors import ConfigError, UnknownName
from swirl_env.fingerprint import fingerprint
from swirl_env.judges.cached import CachedJudge
from swirl_env.judges.weighted import WeightedJudge
from swirl_env.registry import make_format, make_judge
from swirl_env.types import Action, Settings, Step, SubTrajectory, Task, ToolResult, Verdict

SETTINGS = Settings(tools=("search_query",), max_steps=4)


class Fixed:
    """Gives every step the same verdict, and counts what it is asked."""

    def __init__(self, verdict: Verdict | None = None, kind: str = "a") -> None:
        self.verdict = verdict or Verdict.good()
        self.kind = kind
        self.asked = 0

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        self.asked += len(steps)
        return [self.verdict] * len(steps)


def step(text: str = "<answer>x</answer>", question: str = "q", seed: int = 0, action: Action | None = None) -> SubTrajectory:
    state = initial_state(Task("t", question, "gold"), question, SETTINGS, seed)
    return SubTrajectory(state, action or Action(text), make_format("xml", SETTINGS.tools).parse(text))


def weighted(**verdicts: tuple[float, Verdict]) -> Verdict:
    judges = [{"judge": Fixed(v), "weight": w, "part": part} for part, (w, v) in verdicts.items()]
    return WeightedJudge(judges).judge([step()])[0]


def test_the_sum_keeps_its_parts() -> None:
    verdict = weighted(process=(0.7, Verdict.good("helps", reward=0.5)), end=(0.3, Verdict.bad("wrong", reward=-1.0)))
    assert verdict.reward == pytest.approx(0.7 * 0.5 - 0.3)
    assert verdict.parts == {"process": 0.5, "end": -1.0}
    assert (verdict.label, verdict.judge, verdict.critique) == ("BAD", "weighted", "process: helps\nend: wrong")


def test_one_failed_part_fails_the_sum() -> None:
    verdict = weighted(a=(1, Verdict.good()), b=(1, Verdict.failed("server away")))
    assert (verdict.status, verdict.reward, verdict.label) == ("failed", None, None)
    assert "server away" in verdict.critique and verdict.parts == {"a": 1.0}


def test_a_part_without_an_opinion_adds_nothing() -> None:
    verdict = weighted(a=(0.7, Verdict.good()), b=(0.3, Verdict.unscored()))
    assert (verdict.reward, verdict.label, verdict.parts) == (0.7, "GOOD", {"a": 1.0})
    assert weighted(a=(1, Verdict.unscored()), b=(1, Verdict.unscored())).status == "unscored"


def test_a_part_without_a_label_leaves_the_label_to_the_others() -> None:
    assert weighted(a=(1, Verdict.good()), b=(1, Verdict("scored", 0.0))).label == "GOOD"
    assert weighted(a=(1, Verdict("scored", 0.5))).label is None


@pytest.mark.parametrize(
    "judges",
    [{}, {"rules": float("nan")}, {"rules": "much"}, [{"judge": Fixed(), "part": "a"}, {"judge": Fixed(), "part": "a"}]],
)
def test_senseless_sums_are_refused(judges: Any) -> None:
    with pytest.raises(ConfigError):
        WeightedJudge(judges)


def test_unknown_parts_are_named() -> None:
    with pytest.raises(UnknownName, match="weihgted"):
        WeightedJudge({"weihgted": 1.0})


def cached(tmp_path: Path, inner: Any) -> CachedJudge:
    return CachedJudge(inner, cache_dir=str(tmp_path))


def test_a_verdict_is_asked_for_once(tmp_path: Path) -> None:
    inner = Fixed(Verdict("scored", 0.5, "BAD", "why é", "j", {"p": 0.5}))
    judge = cached(tmp_path, inner)
    first = judge.judge([step(), step("<answer>y</answer>"), step()])
    assert inner.asked == 2 and first == [inner.verdict] * 3
    again = cached(tmp_path, inner)
    assert again.judge([step()]) == [inner.verdict] and inner.asked == 2
    assert (again.stats["hits"], again.stats["misses"]) == (1, 0)
    assert (judge.stats["hits"], judge.stats["misses"]) == (0, 2)


def test_failed_verdicts_are_not_kept(tmp_path: Path) -> None:
    inner = Fixed(Verdict.failed("away"))
    judge = cached(tmp_path, inner)
    assert judge.judge([step()])[0].status == "failed"
    inner.verdict = Verdict.good()
    assert judge.judge([step()])[0].status == "scored" and inner.asked == 2


def test_all_that_a_judge_sees_is_in_the_key(tmp_path: Path) -> None:
    judge, base = cached(tmp_path, Fixed()), step()
    task, state = base.state.task, base.state
    later = next_state(state, Step(base.action, base.call, ToolResult("r"), "obs"))
    replace = msgspec.structs.replace
    others = [
        step("<answer>y</answer>"),
        step(question="other"),
        replace(base, result=ToolResult("r")),
        replace(base, state=replace(state, task=replace(task, answer="other"))),
        replace(base, state=replace(state, settings=replace(SETTINGS, max_steps=5))),
        replace(base, state=later),
        replace(base, state=next_state(state, Step(base.action, base.call, ToolResult("s"), "obs"))),
    ]
    keys = {judge.key(other) for other in others}
    assert len(keys) == len(others) and judge.key(base) not in keys
    assert cached(tmp_path, Fixed(kind="b")).key(base) != judge.key(base)
    # How the text was sampled is nothing that a judge goes by.
    sampled = step(seed=9, action=Action("<answer>x</answer>", (1, 2), (-0.1, -0.2), (7,), 1))
    assert judge.key(sampled) == judge.key(base)


def _judge_many(path: str, start: int) -> int:
    judge = CachedJudge(Fixed(), cache_dir=path)
    for i in range(start, start + 40):
        judge.judge([step(f"<answer>{i}</answer>")])
    return judge.stats["errors"]


def test_processes_share_the_cache(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_judge_many, [(str(tmp_path), 0), (str(tmp_path), 20)]) == [0, 0]
    inner = Fixed()
    judge = cached(tmp_path, inner)
    judge.judge([step(f"<answer>{i}</answer>") for i in range(60)])
    assert inner.asked == 0 and judge.stats["hits"] == 60


def test_a_broken_cache_costs_no_verdict(tmp_path: Path) -> None:
    judge = cached(tmp_path, Fixed())
    judge.path.parent.mkdir(parents=True)
    judge.path.write_bytes(b"not a database " * 100)
    assert judge.judge([step()]) == [Verdict.good()]
    assert judge.stats["errors"] == 2


def test_a_foreign_entry_is_judged_again(tmp_path: Path) -> None:
    inner = Fixed()
    judge = cached(tmp_path, inner)
    judge.judge([step()])
    with sqlite3.connect(judge.path) as connection:
        connection.execute("UPDATE verdicts SET verdict = ?", (b'{"status": "great"}',))
    connection.close()
    assert cached(tmp_path, inner).judge([step()]) == [Verdict.good()] and inner.asked == 2


def test_the_cache_travels_to_other_processes(tmp_path: Path) -> None:
    judge = cached(tmp_path, Fixed())
    judge.judge([step()])
    copy = pickle.loads(pickle.dumps(judge))
    assert copy.judge([step()]) == [Verdict.good()] and copy.inner.asked == 1


def test_the_cache_has_the_fingerprint_of_its_judge(tmp_path: Path) -> None:
    inner = Fixed()
    assert cached(tmp_path, inner).fingerprint == fingerprint(inner) != fingerprint(Fixed(kind="b"))


def test_a_fingerprint_names_a_judge_with_its_options() -> None:
    rules = fingerprint("rules")
    assert rules.startswith("rules-") and rules == fingerprint({"name": "rules", "good": 1.0}) == fingerprint(make_judge("rules"))
    assert rules != fingerprint({"name": "rules", "good": 2.0})
    one = WeightedJudge([{"judge": Fixed(), "part": "a"}])
    assert one.fingerprint == fingerprint(one) != WeightedJudge([{"judge": Fixed(), "part": "a", "weight": 2.0}]).fingerprint


class Secretive:
    """Keeps its option where nobody finds it."""

    def __init__(self, level: int = 1) -> None:
        self._hidden = {level}

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        return [Verdict.good()] * len(steps)


def test_options_that_an_object_does_not_show_are_those_it_was_built_with() -> None:
    name = f"{__name__}:Secretive"
    sys.modules[__name__] = sys.modules.get(__name__) or types.ModuleType(__name__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "Secretive", Secretive, raising=False)
        assert fingerprint({"name": name}) == fingerprint({"name": name, "level": 1})
        assert fingerprint({"name": name}) != fingerprint({"name": name, "level": 2})


def test_what_a_judge_counts_is_no_part_of_its_fingerprint() -> None:
    judge = Fixed()
    before = fingerprint(judge)
    judge.judge([step()])
    assert fingerprint(judge) == before
    assert fingerprint(judge).replace("-", "").replace("_", "").replace(".", "").isalnum()


def test_made_by_name() -> None:
    judge = make_judge("weighted", judges=[{"judge": Fixed(), "weight": 1.0, "part": "a"}])
    assert judge.judge([step()])[0].parts == {"a": 1.0}
