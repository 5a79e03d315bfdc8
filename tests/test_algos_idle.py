"""A run that trains on nothing is an error with its reason, and every loop of a run has a bound other than progress."""

import json

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="the policy is a tiny Llama")

from test_algos_run import ColourTasks, EchoTool, untrained  # noqa: E402

from fakes import Evens  # noqa: E402
from swirl_env.algos.grpo import Grpo  # noqa: E402
from swirl_env.algos.reinforce import Reinforce  # noqa: E402
from swirl_env.algos.return_to_go import ReturnToGo  # noqa: E402
from swirl_env.algos.rft import Rft  # noqa: E402
from swirl_env.algos.rounds import MOST_DRAWS  # noqa: E402
from swirl_env.algos.run import Limits, Run  # noqa: E402
from swirl_env.algos.run_logs import read_log  # noqa: E402
from swirl_env.algos.swirl import Swirl  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.env import build_engine  # noqa: E402
from swirl_env.errors import ConfigError, SwirlError, TrainingError  # noqa: E402
from swirl_env.types import Verdict  # noqa: E402

STEPWISE = {
    "return_to_go": lambda: ReturnToGo(episodes_per_update=4),
    "swirl": lambda: Swirl(filter="none", questions=4, states_per_update=4),
    "swirl-logged": lambda: Swirl(actions="logged", filter="none", questions=4, states_per_update=4, rounds=0),
}
FILTERED = {
    "rft": lambda: Rft(filter="outcome", questions=4),
    "swirl": lambda: Swirl(filter="process", questions=4, states_per_update=4),
    "swirl-logged": lambda: Swirl(actions="logged", filter="both", questions=4, states_per_update=4, rounds=0),
}
OUTCOME = {"reinforce": lambda: Reinforce(episodes_per_update=4), "grpo": lambda: Grpo(questions_per_update=2, samples=2)}


class Raises:
    """A judge that is broken."""

    def judge(self, steps):
        raise RuntimeError("no such rubric")


class Says:
    """A judge of one opinion."""

    def __init__(self, verdict):
        self.verdict = verdict

    def judge(self, steps):
        return [self.verdict] * len(steps)


def prepared(folder, judge, limits=None, kl=0.0, options=None, **kwargs):
    torch.manual_seed(0)
    model, agent = untrained()
    agent.max_context = kwargs.pop("max_context", agent.max_context)
    engine = build_engine(ColourTasks(), tools=[EchoTool()], judge=judge, prompt="question", max_steps=2)
    trainer = Trainer(model, TrainConfig(lr=1e-2, kl=kl, **(options or {})))
    return Run(agent, engine, trainer, folder, limits or Limits(sampled_tokens=10**6), slots=8, **kwargs)


@pytest.mark.parametrize("name", STEPWISE)
@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        (None, "the run has no judge"),
        (Says(Verdict.unscored()), "unscored"),
        (Says(Verdict.failed("server away")), "failed.*server away"),
    ],
    ids=["none", "unscored", "failed"],
)
def test_a_judge_that_scores_nothing_stops_the_run_with_its_reason(name, judge, reason, tmp_path):
    run = prepared(tmp_path, judge)
    with pytest.raises(TrainingError, match=f"without anything to train on.*{reason}"):
        STEPWISE[name]().train(run)
    assert run.spent.updates == 3 and run.spent.optimizer_steps == 0


@pytest.mark.parametrize("name", STEPWISE)
def test_a_judge_that_raises_on_every_step_stops_the_run_with_its_error(name, tmp_path):
    run = prepared(tmp_path, Raises())
    with pytest.raises(SwirlError, match="no such rubric"):
        STEPWISE[name]().train(run)
    assert run.spent.updates <= 3 and run.spent.optimizer_steps == 0


@pytest.mark.parametrize("name", OUTCOME)
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_outcomes_that_are_all_alike_end_as_an_error(name, kl, tmp_path):
    run = prepared(tmp_path, None, Limits(updates=2), kl)
    run.agent.max_new_tokens = 1  # no answer can be complete
    with pytest.raises(TrainingError, match="Nothing was trained on: in 2 updates all advantages were 0"):
        OUTCOME[name]().train(run)


@pytest.mark.parametrize("name", FILTERED)
@pytest.mark.parametrize("limits", [Limits(updates=2), Limits(sampled_tokens=10**6)], ids=["updates", "tokens"])
def test_a_filter_that_nothing_passes_ends_after_a_fixed_number_of_rollouts(name, limits, tmp_path):
    if name == "rft" and not limits.updates:
        limits = Limits(sampled_tokens=10**6, updates=5)
    run = prepared(tmp_path, Says(Verdict.bad()), limits)
    run.agent.max_new_tokens = 1
    with pytest.raises(TrainingError, match=r"none of 32 rollouts passed the filter '\w+' \("):
        FILTERED[name]().train(run)
    assert run.spent.episodes == 4 * MOST_DRAWS


def test_a_filter_on_verdicts_that_are_not_there_gives_up_at_once(tmp_path):
    run = prepared(tmp_path, Raises())
    with pytest.raises(TrainingError, match="none of 4 rollouts passed the filter 'process'"):
        FILTERED["swirl"]().train(run)


@pytest.mark.parametrize("algorithm", [*OUTCOME.values(), STEPWISE["return_to_go"], FILTERED["rft"]])
def test_a_model_that_fails_on_every_batch_stops_the_run_with_its_error(algorithm, tmp_path):
    run = prepared(tmp_path, Says(Verdict.good()))

    def broken(*args, **kwargs):
        raise RuntimeError("weights are on two devices")

    run.agent._generate = broken
    with pytest.raises(SwirlError, match=r"failed on every state.*RuntimeError: weights are on two devices"):
        algorithm().train(run)


@pytest.mark.parametrize("algorithm", [*OUTCOME.values(), STEPWISE["return_to_go"], STEPWISE["swirl"]])
def test_prompts_over_the_context_stop_the_run(algorithm, tmp_path):
    run = prepared(tmp_path, Says(Verdict.good()), max_context=1)
    with pytest.raises(TrainingError, match="every prompt fills its context of 1 tokens"):
        algorithm().train(run)


def test_stored_trajectories_that_no_filter_passes_or_none_at_all_are_an_error(tmp_path):
    algorithm = Rft(filter="outcome", states="stored")
    with pytest.raises(ConfigError, match="was given none"):
        algorithm.train(prepared(tmp_path / "a", None, Limits(updates=2)))
    run = prepared(tmp_path / "b", Says(Verdict.bad()), Limits(updates=2))
    run.agent.max_new_tokens = 1
    stored = run.rollouts(6)
    again = prepared(tmp_path / "c", None, Limits(updates=2), stored=stored)
    with pytest.raises(TrainingError, match="none of 6 stored trajectories passed the filter 'outcome'"):
        algorithm.train(again)


def test_a_run_without_a_limit_is_refused_and_so_is_a_negative_one():
    with pytest.raises(ConfigError, match="Nothing would end the run"):
        Limits()
    with pytest.raises(ConfigError, match="updates is a whole number, 0 or more"):
        Limits(updates=-1)


def test_an_algorithm_that_makes_no_update_is_an_error(tmp_path):
    class Lazy:
        def train(self, run):
            for _ in run.updates():
                pass

    with pytest.raises(TrainingError, match="the algorithm made no update"):
        Lazy().train(prepared(tmp_path, None))


def test_a_run_that_has_learnt_something_ends_well_if_signal_runs_out(tmp_path):
    run = prepared(tmp_path, Says(Verdict.good()), Limits(updates=4))
    Swirl(filter="none", questions=4, states_per_update=4, baseline="none").train(run)
    run.stop("later rounds gave nothing")
    assert run.spent.optimizer_steps == 4 and run.ended == "later rounds gave nothing"


@pytest.mark.parametrize("reward", [3e38, -2e38])
def test_rewards_that_overflow_skip_updates_and_stop_the_run(reward, tmp_path):
    run = prepared(tmp_path, Says(Verdict.good(reward=reward)), Limits(updates=50))
    before = [p.detach().clone() for p in run.agent.model.parameters()]
    with pytest.raises(TrainingError, match="not finite in 9 updates in a row"):
        ReturnToGo(episodes_per_update=4, baseline="none").train(run)
    assert all(torch.equal(a, b) for a, b in zip(before, run.agent.model.parameters(), strict=True))
    rows = read_log(tmp_path)
    assert [row["skipped_updates"] for row in rows] == list(range(1, 9))
    text = (tmp_path / "metrics.jsonl").read_text()

    def refuse(name):
        raise AssertionError(name)

    for line in text.splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("save_every", [0, 1])
def test_weights_that_are_not_finite_are_never_kept(save_every, tmp_path, monkeypatch):
    run = prepared(tmp_path, Evens(), Limits(updates=1), save_every=save_every)
    monkeypatch.setattr(run.trainer.optimizer, "step", lambda lr: next(run.agent.model.parameters()).data.fill_(float("inf")))
    with pytest.raises(TrainingError, match=r"any more after 1 updates, and were not saved: trainer\.lr is too high"):
        ReturnToGo(episodes_per_update=4, baseline="none").train(run)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_updates_skipped_to_the_very_end_are_an_error(tmp_path):
    run = prepared(tmp_path, Says(Verdict.good(reward=3e38)), Limits(updates=2))
    with pytest.raises(TrainingError, match=r"in 2 updates loss or gradient was not finite.*Check the rewards"):
        ReturnToGo(episodes_per_update=4, baseline="none").train(run)


@pytest.mark.parametrize("name", STEPWISE)
def test_a_run_whose_actions_are_all_cut_off_and_masked_says_so(name, tmp_path):
    run = prepared(tmp_path, Evens(), options={"overlong": "mask"})
    run.agent.max_new_tokens = 1
    run.agent.end_ids = frozenset()  # nothing ends an action but a closing tag, which one token is not
    run.agent._ended = lambda state: lambda ids: False
    with pytest.raises(TrainingError, match=r"overlong=mask left every action out, as model\.max_new_tokens"):
        STEPWISE[name]().train(run)
    assert run.spent.updates == 3
