"""The implicit reward model learns from outcomes alone which actions lead to them, on questions that it has not seen."""

import msgspec
import pytest

pytest.importorskip("torch", reason="a reward model needs torch")

import tiny_lm
from fakes import SumTasks
from swirl_env.audit.signals import make_signal
from swirl_env.env import build_engine
from swirl_env.errors import ConfigError, UnknownName
from swirl_env.store import Store
from swirl_env.types import Action, Outcome

USEFUL, USELESS = "<echo>12 + 30</echo>", "<echo>Acme Works</echo>"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    tiny_lm.llama(len(tiny_lm.tokenizer())).save_pretrained(folder)
    tiny_lm.tokenizer().save_pretrained(folder)
    return str(folder)


def episodes(first, count):
    """Episodes on questions of their own: a useful call is followed by success, a useless one by failure."""
    engine = build_engine(SumTasks(first + count), tools=["fakes:EchoTool"], judge=None)
    for i in range(first, first + count):
        state = engine.begin(engine.tasks[i])
        for text in (USEFUL if i % 2 else USELESS, "<answer>Oslo</answer>"):
            (transition,) = engine.step([state], [Action(text)])
            state = transition.state
        yield msgspec.structs.replace(engine.trajectory(transition), outcome=Outcome("Oslo", bool(i % 2), 0.0))


def fill(path, trajectories):
    with Store(path) as store:
        for trajectory in trajectories:
            store.append(trajectory)
    return str(path)


def signal(**options):
    return make_signal({"name": "implicit_prm", **options}, None, None).signal


def test_it_finds_the_action_that_decides_the_outcome(tmp_path, model):
    train = fill(tmp_path / "train", episodes(0, 8))
    prm = signal(model=model, train=train, beta=1.0, lr=3e-3, passes=2, batch=4)
    rated = list(episodes(30, 4))
    verdicts = prm.rate(rated)
    calls = [of_one[0].reward for of_one in verdicts]
    assert min(calls[1::2]) > 0 > max(calls[::2])
    assert prm.spent()["calls"] == 16
    assert prm.table != signal(model=model, train=train, beta=0.5).table


def test_the_name_of_its_table_changes_with_what_it_learns_from(tmp_path, model):
    tables = {signal(model=model, train=fill(tmp_path / str(n), episodes(0, n))).table for n in (4, 6)}
    assert len(tables) == 2


def test_it_may_not_rate_what_it_has_learnt_from(tmp_path, model):
    prm = signal(model=model, train=fill(tmp_path / "train", episodes(0, 4)))
    with pytest.raises(ConfigError, match=r"learns from episodes on 'sum-3', which it is to rate"):
        prm.rate(list(episodes(3, 2)))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, ConfigError, "needs a value for 'model'"),
        ({"model": "m"}, ConfigError, "needs a value for 'train'"),
        ({"model": "m", "train": "t", "beta": 0}, ConfigError, "beta is above 0"),
        ({"model": "m", "train": "t", "pases": 2}, UnknownName, "Did you mean 'passes'"),
        ({"model": "m", "train": "t", "passes": "two"}, ConfigError, "passes of implicit_prm: expected int"),
    ],
)
def test_wrong_options_are_one_sentence(options, error, says):
    with pytest.raises(error, match=says):
        signal(**options)


def test_episodes_without_a_grade_teach_nothing(tmp_path, model):
    open_ = (msgspec.structs.replace(t, outcome=Outcome("Oslo", None, None)) for t in episodes(0, 2))
    with pytest.raises(ConfigError, match="holds no graded episode"):
        signal(model=model, train=fill(tmp_path / "train", open_))
