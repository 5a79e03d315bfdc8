"""What an algorithm learns apart from the policy: in every checkpoint, without pickle, and exact on resume."""

import copy
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="the policy is a tiny Llama")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from test_algos_run import Teacher, engine, untrained  # noqa: E402
from test_algos_trainer import some_steps, tiny, weights  # noqa: E402

from swirl_env.algos.algorithm_state import read_state, write_state  # noqa: E402
from swirl_env.algos.run import Limits, Run  # noqa: E402
from swirl_env.algos.steps import tabulate  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.episodes.rollout import collect  # noqa: E402
from swirl_env.errors import ConfigError, StoreError  # noqa: E402


class Box:
    """Holds anything."""

    def __init__(self, state=None):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def same(a, b):
    if isinstance(a, torch.Tensor | np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(np.asarray(a), np.asarray(b))
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def round_trip(state, folder):
    write_state(folder, "box", state)
    for file in folder.iterdir():
        load_file(file) if file.suffix == ".safetensors" else json.loads(file.read_text(), parse_constant=pytest.fail)
    box = Box()
    read_state(folder, "box", box)
    return box.state


plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
nested = st.recursive(
    plain, lambda s: st.lists(s) | st.lists(s).map(tuple) | st.dictionaries(st.text() | st.integers(), s), max_leaves=12
)


@settings(max_examples=60, deadline=None)
@given(nested)
def test_any_state_comes_back_as_it_was(tmp_path_factory, state):
    assert same(round_trip(state, tmp_path_factory.mktemp("s")), state)


def test_tensors_arrays_and_trajectories_come_back_as_they_were(tmp_path):
    shared = torch.arange(6.0)
    episodes = list(collect(Teacher(0, 0.5), engine(), 2, seed=1))
    state = {
        "views": [shared, shared[:3], shared.view(2, 3).T, torch.tensor(1.5), torch.zeros(0, 4)],
        "kinds": (torch.ones(2, dtype=torch.bfloat16), torch.tensor([True]), torch.tensor(3, dtype=torch.int64)),
        "arrays": [np.arange(4), np.array([[1.5, np.nan]])[:, ::-1], np.zeros(0, bool)],
        7: {"buffer": episodes, "weight": torch.nn.Parameter(torch.ones(2)).detach()},
    }
    after = round_trip(state, tmp_path)
    assert after[7].pop("buffer") == state[7].pop("buffer") == episodes
    flat = [*after["views"], *after["kinds"]], [*state["views"], *state["kinds"]]
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*flat, strict=True))
    assert all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(after["arrays"], state["arrays"], strict=True))


@pytest.mark.parametrize("thing", [object(), {1, 2}, b"x", lambda: 1, {("a", 1): 2}, {1.5: 2}, np.array(["x"]), 1j, print])
def test_what_json_and_safetensors_cannot_hold_is_named(thing, tmp_path):
    with pytest.raises(ConfigError, match=r"box\.deep\[1\].*cannot hold"):
        write_state(tmp_path, "box", {"deep": [1, thing]})


def test_states_nested_without_end_are_refused(tmp_path):
    loop: list = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="nested more than"):
        write_state(tmp_path, "box", loop)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"a":1,"b":2}', '{"tensor":"9"}', '{"os.system":"x"}', '{"dict":[[1]]}', "[" * 10**5, '{"list":3}'],
)
def test_hostile_states_are_one_sentence(content, tmp_path):
    write_state(tmp_path, "head", torch.nn.Linear(2, 2).state_dict())
    (tmp_path / "state-head.json").write_text(content)
    with pytest.raises(StoreError, match="does not fit this Linear"):
        read_state(tmp_path, "head", torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", "a.b", "x" * 50, "state 1", None])
def test_names_that_are_no_file_names_are_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="lower-case letters"):
        started(tmp_path).register(name, Box())


def started(folder, updates=6, resume=False, config=None, save_every=2, dropout=0.0):
    torch.manual_seed(0)
    _, agent = untrained()
    if dropout:
        peft = pytest.importorskip("peft", reason="LoRA comes from peft")
        lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=dropout)
        agent.model = peft.get_peft_model(agent.model, lora)
    trainer = Trainer(agent.model, config or TrainConfig(lr=1e-2))
    limits = Limits(updates=updates)
    return Run(agent, engine(), trainer, folder, limits, slots=16, seed=3, save_every=save_every, resume=resume)


def test_a_name_is_taken_once_and_things_need_both_methods(tmp_path):
    run = started(tmp_path)
    box = Box(1)
    assert run.register("box", box) is box
    with pytest.raises(ConfigError, match="already"):
        run.register("box", Box())
    with pytest.raises(ConfigError, match="has no method state_dict"):
        run.register("thing", object())


class WithCritic:
    """A critic on the policy's features, a reward model of its own, and a buffer: all trained after each update."""

    def __init__(self, options=None):
        self.options = options or {}

    def train(self, run):
        generator = torch.Generator().manual_seed(run.seed)
        head = run.register("critic", torch.nn.Linear(32, 1))
        with torch.no_grad():
            if run.spent.updates == 0:
                head.weight.copy_(torch.randn(1, 32, generator=generator))
                head.bias.zero_()
        adam = run.register("critic_optimizer", torch.optim.Adam(head.parameters(), lr=1e-2))
        model, config = copy.deepcopy(run.agent.model), TrainConfig(lr=1e-2, **self.options)
        prm = run.register("prm", Trainer(model, config, run.trainer.accelerator))
        buffer = run.register("buffer", Box([]))
        for _ in run.updates():
            trajectories = run.rollouts(8)
            table = tabulate(trajectories, run.agent.renderer)
            reference = run.logprobs(table.steps, reference=True)
            implicit = run.logprobs(table.steps, trainer=prm)
            reward = np.array([sum(a) - sum(b) for a, b in zip(implicit, reference, strict=True)])
            features = run.features(table.steps)
            value = head(features).squeeze(-1)
            gain = table.outcome - value.detach().numpy() + 0.1 * reward
            run.update(table.steps, gain, table.known, buffered=float(len(buffer.state)))
            buffer.state = [*buffer.state, *trajectories][-12:]
            adam.zero_grad()
            (value - torch.tensor(table.outcome, dtype=torch.float32)).square().mean().backward()
            adam.step()
            run.fit(prm, table.steps, table.outcome - 0.5, table.known)
        self.parts = torch.cat([p.detach().flatten() for p in (*head.parameters(), *prm.model.parameters())])
        self.buffer = buffer.state


@pytest.mark.parametrize(("at", "dropout"), [(1, 0.0), (3, 0.0), (5, 0.0), (3, 0.3)])
def test_a_killed_run_ends_with_the_same_policy_critic_reward_model_and_buffer(at, dropout, tmp_path):
    straight, whole = started(tmp_path / "a", dropout=dropout), WithCritic()
    whole.train(straight)
    killed = started(tmp_path / "b", save_every=1 if at == 1 else 2, dropout=dropout)

    class Killed(Exception):
        pass

    original = killed.features

    def dies(steps):
        if killed.spent.updates == at:
            raise Killed
        return original(steps)

    killed.features = dies
    with pytest.raises(Killed):
        WithCritic().train(killed)
    torch.manual_seed(77)  # nothing drawn meanwhile matters
    resumed, again = started(tmp_path / "b", resume=True, dropout=dropout), WithCritic()
    assert resumed.spent.updates == {1: 1, 3: 2, 5: 4}[at]
    again.train(resumed)
    assert torch.equal(weights(straight.agent.model), weights(resumed.agent.model))
    assert torch.equal(whole.parts, again.parts) and whole.buffer == again.buffer
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == (tmp_path / "b" / "metrics.jsonl").read_text()


def test_a_checkpoint_of_another_algorithm_says_so(tmp_path):
    started(tmp_path).register("critic", torch.nn.Linear(2, 1))
    run = started(tmp_path)
    run.register("critic", torch.nn.Linear(2, 1))
    table = tabulate(list(collect(Teacher(0, 0.5), engine(), 4, seed=1)), run.agent.renderer)
    for _ in range(2):
        run.update(table.steps, [1.0] * len(table.steps), [True] * len(table.steps))
    resumed = started(tmp_path, resume=True)
    with pytest.raises(StoreError, match="has no state of 'value'"):
        resumed.register("value", torch.nn.Linear(2, 1))
    with pytest.raises(StoreError, match="does not fit this Linear"):
        resumed.register("critic", torch.nn.Linear(3, 1))
    resumed.register("critic", torch.nn.Linear(2, 1))


def test_a_trainer_of_another_model_keeps_its_reference(tmp_path):
    one = Trainer(tiny(), TrainConfig(lr=1e-2))
    steps, gain, valid = some_steps(0)
    first = one.logprobs(steps, reference=True)
    one.update(steps, gain, valid)
    write_state(tmp_path, "prm", one.state_dict())
    two = Trainer(tiny(seed=4), TrainConfig(lr=1e-2))
    read_state(tmp_path, "prm", two)
    assert two.logprobs(steps, reference=True) == first != two.logprobs(steps) == one.logprobs(steps)
    assert two.update(steps, gain, valid) == one.update(steps, gain, valid)
