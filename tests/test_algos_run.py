"""Algorithms on a toy that a tiny policy learns in seconds: every one improves, and a killed run goes on exactly."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
transformers = pytest.importorskip("transformers", reason="the policy is a tiny Llama")
tokenizers = pytest.importorskip("tokenizers", reason="the policy's tokenizer")

from fakes import EchoTool  # noqa: E402
from swirl_env.agents.transformers import TransformersAgent  # noqa: E402
from swirl_env.algos.grpo import Grpo  # noqa: E402
from swirl_env.algos.reinforce import Reinforce  # noqa: E402
from swirl_env.algos.return_to_go import ReturnToGo  # noqa: E402
from swirl_env.algos.rft import Rft  # noqa: E402
from swirl_env.algos.run import Limits, Run  # noqa: E402
from swirl_env.algos.run_logs import read_log  # noqa: E402
from swirl_env.algos.steps import tabulate  # noqa: E402
from swirl_env.algos.swirl import Swirl  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.env import build_engine  # noqa: E402
from swirl_env.episodes.rollout import collect  # noqa: E402
from swirl_env.types import Answer, State, SubTrajectory, Task, ToolCall, Verdict  # noqa: E402

WORDS = ["[UNK]", "[EOS]", "<echo>", "</echo>", "<answer>", "</answer>", "red", "blue", "green", "->", "RED", "BLUE", "GREEN"]
COLOURS = ["red", "blue", "green"]


class ColourTasks:
    """Ask the echo about the colour of the question, then answer it."""

    corpus, split, max_steps = None, "train", 3
    tools: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 300

    def __getitem__(self, i: int) -> Task:
        return Task(f"colour-{i}", COLOURS[i % 3], COLOURS[i % 3])


class ColourJudge:
    """Good: echoing the colour once, then answering it."""

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        return [Verdict.good() if self._good(s) else Verdict.bad() for s in steps]

    def _good(self, s: SubTrajectory) -> bool:
        asked = [step.call.query for step in s.state.steps if isinstance(step.call, ToolCall)]
        if isinstance(s.call, ToolCall):
            return s.call.query == s.state.task.answer and not asked
        return isinstance(s.call, Answer) and s.call.text == s.state.task.answer and s.state.task.answer in asked


def tokenizer():
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tags = tokenizers.Regex(r"</?\w+>")
    words.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Split(tags, "isolated"), tokenizers.pre_tokenizers.WhitespaceSplit()]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[EOS]")
    return fast


def untrained():
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, eos_token_id=1, pad_token_id=1, bos_token_id=None,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    return model, TransformersAgent(model, tokenizer=tokenizer(), template="plain", max_new_tokens=4, batch_size=64)


def policy(seed=0, skill=0.35):
    """A tiny policy, taught the format and, at rate `skill`, what to write in it."""
    torch.manual_seed(seed)
    model, agent = untrained()
    trainer = Trainer(model, TrainConfig(lr=1e-2))
    for u in range(40):
        demos = list(collect(Teacher(u, skill), engine(), 24, seed=u))
        table = tabulate(demos, agent.renderer)
        trainer.update(table.steps, [1.0] * len(table.steps), [True] * len(table.steps))
    return model, agent


def policy_from(weights):
    model, agent = untrained()
    model.load_state_dict(weights)
    return model, agent


class Teacher:
    """Echoes, then answers, a colour that is right at rate `skill`."""

    def __init__(self, seed: int, skill: float) -> None:
        self.seed, self.skill = seed, skill

    def act(self, states: Sequence[State]):
        from swirl_env.seeding import generator
        from swirl_env.types import Action

        results = []
        for state in states:
            rng = generator(self.seed, state)
            colour = state.task.answer if rng.random() < self.skill else rng.choice(COLOURS)
            tag = "answer" if state.steps and rng.random() < 0.7 else "echo"
            results.append(Action(f"<{tag}> {colour} </{tag}>"))
        return results


def engine():
    return build_engine(ColourTasks(), tools=[EchoTool()], judge=ColourJudge(), prompt="question", max_steps=3)


def success(agent):
    agent.model.eval()
    results = list(collect(agent, engine(), 150, seed=99))
    return sum(bool(t.outcome.correct) for t in results) / len(results)


@pytest.fixture(scope="module")
def taught():
    model, agent = policy()
    return {k: v.clone() for k, v in model.state_dict().items()}, success(agent)


def prepared(taught, folder: Path, seed=3, lr=5e-3, **kwargs):
    model, agent = policy_from(taught[0])
    trainer = Trainer(model, TrainConfig(lr=lr))
    return Run(agent, engine(), trainer, folder, kwargs.pop("limits", Limits(updates=60)), slots=32, seed=seed, **kwargs)


SMALL = {"questions": 64, "filter": "none"}
STATES = {**SMALL, "states_per_update": 40, "samples_per_state": 4}
OPTIONS = {
    "swirl": (Swirl, {**STATES, "rounds": 4, "updates_per_round": 8}, 1e-3),
    "swirl-logged": (Swirl, {**SMALL, "actions": "logged", "states_per_update": 40, "rounds": 15, "updates_per_round": 3}, 2e-3),
    "swirl-mix": (Swirl, {**STATES, "group": "mix", "rounds": 15, "updates_per_round": 3, "skip_flat": True}, 2e-3),
    "rft": (Rft, {"questions": 64, "updates_per_round": 8, "episodes_per_update": 24}, 2e-3),
    "reinforce": (Reinforce, {"episodes_per_update": 32}, 2e-3),
    "grpo": (Grpo, {"questions_per_update": 8, "samples": 8}, 2e-3),
    "return_to_go": (ReturnToGo, {"episodes_per_update": 32}, 1e-3),
}


UPDATES = {"swirl": 36, "swirl-logged": 24, "swirl-mix": 30, "rft": 24, "reinforce": 60, "grpo": 36, "return_to_go": 40}
"""Enough for a margin over what the test asks."""


def algorithm(name):
    kind, options, _ = OPTIONS[name]
    return kind(**options)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_algorithm_improves_the_policy(name, taught, tmp_path):
    run = prepared(taught, tmp_path, lr=OPTIONS[name][2], limits=Limits(updates=UPDATES[name]))
    algorithm(name).train(run)
    after = success(run.agent)
    assert after > taught[1] + 0.1, (taught[1], after)
    rows = read_log(run.folder)
    assert [row["update"] for row in rows] == list(range(1, UPDATES[name] + 1))
    for count in ("sampled_tokens", "trained_tokens", "judge_calls", "episodes"):
        values = [row[count] for row in rows]
        assert values == sorted(values) and values[-1] > 0, count


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.trainer.model.parameters()])


@pytest.mark.parametrize("name", ["swirl", "rft", "reinforce"])
def test_a_killed_run_ends_with_the_same_weights_and_metrics(name, taught, tmp_path):
    limits = Limits(updates=12)
    straight = prepared(taught, tmp_path / "a", limits=limits, save_every=2)
    algorithm(name).train(straight)

    class Killed(Exception):
        pass

    killed = prepared(taught, tmp_path / "b", limits=limits, save_every=2)
    original, left = killed.trainer.update, [7]

    def dies(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return original(*args, **kwargs)

    killed.trainer.update = dies
    with pytest.raises(Killed):
        algorithm(name).train(killed)
    resumed = prepared(taught, tmp_path / "b", limits=limits, save_every=2, resume=True)
    assert resumed.spent.updates == 6
    algorithm(name).train(resumed)
    assert torch.equal(weights(straight), weights(resumed))
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == (tmp_path / "b" / "metrics.jsonl").read_text()


def test_a_budget_of_sampled_tokens_ends_a_run(taught, tmp_path):
    measured = []

    def evaluate(agent):
        measured.append(1)
        return {"eval": 0.5}

    run = prepared(taught, tmp_path, limits=Limits(sampled_tokens=1500), evaluate=evaluate, eval_every=2)
    Reinforce(episodes_per_update=16).train(run)
    rows = read_log(run.folder)
    assert run.done and rows[-1]["sampled_tokens"] >= 1500 > rows[-2]["sampled_tokens"]
    assert [("eval" in row) for row in rows] == [row["update"] % 2 == 0 or row is rows[-1] for row in rows]
    assert json.loads((tmp_path / "timing.jsonl").read_text().splitlines()[0])["update"] == 1


def test_evaluations_at_token_counts_run_once_and_cost_no_time(taught, tmp_path):
    marks, passed = (100, 400, 401, 800, 10**6), []

    def note(mark):
        passed.append((mark, run.spent.sampled_tokens))
        time.sleep(0.2)

    given = {"eval_at_tokens": marks, "evaluate_at": note, "save_every": 1}
    run = prepared(taught, tmp_path, limits=Limits(sampled_tokens=600), **given)
    Reinforce(episodes_per_update=16).train(run)
    tokens = [row["sampled_tokens"] for row in read_log(run.folder)]
    assert passed == [(mark, next(n for n in tokens if n >= mark)) for mark in marks[:3]]
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)
    run = prepared(taught, tmp_path, limits=Limits(sampled_tokens=1000), resume=True, **given)
    Reinforce(episodes_per_update=16).train(run)
    assert [mark for mark, _ in passed] == [100, 400, 401, 800]


def test_rounds_remember_earlier_rounds_and_so_does_a_resumed_run(taught, tmp_path):
    def kept(memory, resume=False):
        limits = Limits(updates=6 if resume else 5)
        run = prepared(taught, tmp_path / str(memory), limits=limits, save_every=5, resume=resume)
        few = {"questions": 20, "states_per_update": 10, "updates_per_round": 2}
        algorithm = Swirl(actions="logged", filter="none", rounds=0, memory=memory, **few)
        algorithm.train(run)
        return [t.task.id for t in algorithm._rounds.trajectories(run, run.spent.updates - 1)]

    rounds = [[f"colour-{i}" for i in range(start, start + 20)] for start in (0, 20, 40)]
    assert [kept(m) for m in (1, 2, 0)] == [rounds[2], rounds[1] + rounds[2], [*rounds[0], *rounds[1], *rounds[2]]]
    assert kept(2, resume=True) == rounds[1] + rounds[2]


def test_step_tables_hold_what_the_trajectories_say(taught):
    _, agent = policy_from(taught[0])
    demos = list(collect(Teacher(0, 0.5), engine(), 6, seed=1))
    table = tabulate(demos, agent.renderer)
    assert table.episode.tolist() == [n for n, t in enumerate(demos) for _ in t.steps]
    assert table.position.tolist() == [i for t in demos for i in range(len(t.steps))]
    assert table.reward.tolist() == [s.verdict.reward for t in demos for s in t.steps]
    assert table.outcome.tolist() == [float(t.outcome.correct) for t in demos for _ in t.steps]
    assert [agent.renderer.decode(s.token_ids) for s in table.steps] == [s.action.text for t in demos for s in t.steps]
    later = [i for i in range(len(table.steps)) if table.position[i]]
    for i in later:
        before = table.steps[i - 1].prompt_ids + table.steps[i - 1].token_ids
        assert table.steps[i].prompt_ids[: len(before)] == before
