"""The embedded policy: its vocabulary and tokenizer, its settings, its warm start and the cache of it."""

import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.algos.batch import chains
from swirl_env.algos.embedded import (
    CONTEXT,
    MAX_NEW_TOKENS,
    SETTINGS,
    Setting,
    build_model,
    build_tokenizer,
    embedded_agent,
    get_setting,
    vocabulary,
)
from swirl_env.algos.sources import imported_sources
from swirl_env.algos.steps import tabulate
from swirl_env.algos.warm_start import WarmStart, _plugin_modules, demonstrations, learning_rate, token_row, warm_start
from swirl_env.episodes.rollout import collect
from swirl_env.errors import ConfigError, UnknownName
from swirl_env.registry import make_agent
from swirl_env.types import Answer, ToolCall

SMALL = Setting("small", 1, 2, 4, 0.2, train_documents=1_300)
QUICK = WarmStart(updates=3, batch=4, worlds=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def own_cache(cache: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE_DIR", str(cache))
        yield


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def renderer(tokenizer) -> Renderer:
    return Renderer(tokenizer)


def expert(noise: float = 0.4):
    return make_agent("scripted", noise=noise, reasoning=False, kinds=("wrong_entity", "repeat", "premature", "malformed"))


def spelled(text: str) -> str:
    """What a text comes back as: its tokens with blanks between them, found here without the tokenizer."""
    return " ".join(re.findall(r"</?\w+>|\[\d+\]|->|\.\.\.|\w+|[^\w\s]", text))


# Tokens


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_everything_that_a_policy_sees_and_writes_is_in_the_vocabulary(name: str, split: str, renderer: Renderer) -> None:
    unknown = renderer.tokenizer.convert_tokens_to_ids("<unk>")
    setting = SETTINGS[name]
    longest = 0
    for trajectory in collect(expert(), setting.engine(split, seed=17, judge=None), 60):
        texts = [trajectory.prompt, *(s.action.text for s in trajectory.steps), *(s.observation for s in trajectory.steps)]
        for text in texts:
            ids = renderer.text_ids(text)
            assert unknown not in ids, text
            assert renderer.decode(ids) == spelled(text)
        longest = max(longest, *(len(renderer.text_ids(s.action.text)) for s in trajectory.steps))
        row = token_row(trajectory, renderer)
        assert len(row.ids) <= CONTEXT * 3 / 4
    assert longest < MAX_NEW_TOKENS


@given(st.text() | st.lists(st.sampled_from(["of", "1923", "<answer>", "</answer>", "x7", "[1]", "Romero", "."])).map("".join))
@settings(deadline=None)
def test_the_ids_of_a_text_are_the_ids_of_what_they_decode_to(text: str) -> None:
    renderer = _renderer()
    ids = renderer.text_ids(text)
    assert renderer.control_ids.isdisjoint(ids)
    assert not renderer.drifts(ids, renderer.decode(ids))


def _renderer(made=[]) -> Renderer:  # noqa: B006 - hypothesis calls the test many times over
    made[:] = made or [Renderer(build_tokenizer())]
    return made[0]


def test_numbers_keep_their_digits(renderer: Renderer) -> None:
    text = "14 March 1923 of 07 pupils"
    assert renderer.decode(renderer.text_ids(text)) == text
    assert len(renderer.text_ids(text)) == 2 + 1 + 4 + 1 + 2 + 1


def test_the_vocabulary_is_small_and_the_model_too(tokenizer) -> None:
    assert len(vocabulary()) < 600
    model = build_model(len(tokenizer), seed=0)
    assert 100_000 < sum(p.numel() for p in model.parameters()) < 130_000
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_weights_follow_from_the_seed_alone(tokenizer) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two, other = (build_model(len(tokenizer), seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(one[name], two[name]) and not torch.equal(one[name], other[name])


# Settings


@pytest.mark.parametrize(("name", "hops"), [("easy", {1, 2, 3, 4}), ("main", {3, 4, 5}), ("sparse", {4, 5, 6})])
def test_settings_ask_for_their_hops_and_can_be_solved(name: str, hops: set[int]) -> None:
    results = list(collect(expert(noise=0.0), SETTINGS[name].engine("test", judge=None), 100))
    assert {t.task.meta["hops"] for t in results} == hops
    assert all(t.outcome.correct for t in results)
    assert max(len(t.steps) for t in results) < SETTINGS[name].max_steps


def test_no_name_is_shared_between_the_splits() -> None:
    def names(split: str, seed: int) -> set[str]:
        tasks = SETTINGS["main"].tasks(split, seed)
        return {name for p in tasks.corpus for name in re.findall(r"[A-Z]\w+ [A-Z]\w+", p.text)}

    results = {split: names(split, 0) | names(split, 1) for split in ("train", "validation", "test")}
    for one, two in itertools.combinations(results, 2):
        shared = results[one] & results[two]
        # What the pattern takes for a name other than the names is the opening of a sentence ("The Academy ...") at most.
        assert not shared, (one, two, sorted(shared)[:5])


def test_unknown_settings_are_told() -> None:
    with pytest.raises(UnknownName, match="main"):
        get_setting("mian")
    assert get_setting(SMALL) is SMALL


# Warm start


def test_a_row_holds_the_steps_as_the_trainer_would_see_them(renderer: Renderer) -> None:
    for trajectory in demonstrations(SMALL, 0, QUICK, 30):
        (row,) = chains(tabulate([trajectory], renderer).steps)
        mine = token_row(trajectory, renderer)
        assert (mine.ids, mine.targets) == (row[0].ids, row[0].targets)
        for step, action in enumerate(trajectory.steps):
            ids = [mine.ids[at] for at, number, _ in mine.targets if number == step]
            assert renderer.decode(ids) == spelled(action.action.text)


def test_demonstrations_differ_by_seed_and_are_many_questions() -> None:
    one, again, other = ([t.prompt for t in demonstrations(SMALL, seed, QUICK, 40)] for seed in (0, 0, 1))
    assert one == again and one != other and len(set(one)) > 35


def test_learning_rate_stays_and_then_falls_to_nothing() -> None:
    config = WarmStart(updates=10, decay=0.4)
    assert [learning_rate(config, i) for i in range(11)] == pytest.approx([1] * 7 + [0.75, 0.5, 0.25, 0.0])


def test_a_warm_start_is_trained_once_and_acts(cache: Path) -> None:
    told: list[tuple[int, int, str]] = []
    folder = warm_start(SMALL, 0, config=QUICK, report=lambda *said: told.append(said))
    assert [said[:2] for said in told] == [(1, 3), (2, 3), (3, 3)]
    assert folder.parent == cache / "warm-starts"
    assert warm_start(SMALL, 0, config=QUICK, report=lambda *said: told.append(said)) == folder
    assert len(told) == 3
    agent = embedded_agent(folder)
    results = list(collect(agent, SMALL.engine("test"), 16, 8))
    assert agent.renderer.prefix_preserving
    assert agent.stats["prefix_breaks"] == agent.stats["too_long"] == 0
    assert len(results) == 16 and agent.stats["tokens"] > 16


def test_every_option_and_the_seed_make_another_warm_start() -> None:
    folders = [
        warm_start(SMALL, 0, config=QUICK),
        warm_start(SMALL, 1, config=QUICK),
        warm_start(SMALL, 0, config=WarmStart(updates=3, batch=4, worlds=1)),
        warm_start(Setting("small", 1, 2, 5, 0.2, train_documents=1_300), 0, config=QUICK),
    ]
    assert len(set(folders)) == 4
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] != weights[1]


def test_a_warm_start_that_breaks_off_leaves_nothing(cache: Path) -> None:
    def stop(done: int, total: int, note: str) -> None:
        raise KeyboardInterrupt

    before = {p.name for p in (cache / "warm-starts").iterdir()} if (cache / "warm-starts").exists() else set()
    with pytest.raises(KeyboardInterrupt):
        warm_start(SMALL, 99, config=QUICK, report=stop)
    after = {p.name for p in (cache / "warm-starts").iterdir()} - before
    assert all(name.endswith(".lock") for name in after)


def test_the_warm_start_learns_the_form_of_actions(cache: Path) -> None:
    folder = warm_start(SMALL, 0, config=WarmStart(updates=80, batch=16, worlds=1))
    agent = embedded_agent(folder)
    steps = [step for t in collect(agent, SMALL.engine("test"), 32, 16) for step in t.steps]
    well_formed = sum(isinstance(step.call, ToolCall | Answer) for step in steps)
    assert well_formed > 0.9 * len(steps)
    assert agent.stats["drift"] == 0


def test_a_cache_key_covers_every_module_that_the_cached_thing_is_made_by():
    # Whatever making demonstrations and a batch really loads must be in the key: an oracle that reads no source.
    code = """
import sys
from swirl_env.algos.warm_start import WarmStart, _plugin_modules, batches
from swirl_env.algos.embedded import Setting, build_tokenizer
from swirl_env.agents.transformers.renderer import Renderer
small = Setting("small", 1, 2, 4, 0.2, train_documents=1_300)
next(batches(small, 0, WarmStart(updates=1, batch=2, worlds=1), Renderer(build_tokenizer())))
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "swirl_env"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {str(Path(importlib.util.find_spec(name).origin)) for name in done.stdout.split()}
    covered = set(map(str, imported_sources(warm_start.__module__, *_plugin_modules(SMALL))))
    assert loaded <= covered, sorted(loaded - covered)
    assert {Path(file).name for file in covered} >= {"grading.py", "registry.py", "types.py", "transcript.py", "scripted.py"}


@pytest.mark.parametrize("body", ["import pack.absent", "def f():\n    from . import deep", "from pack.deep.er import x"])
def test_a_cache_key_follows_imports_of_every_kind_and_names_a_missing_module(body, tmp_path, monkeypatch):
    (tmp_path / "pack" / "deep").mkdir(parents=True)
    for name, text in {"__init__": "", "main": body, "deep/__init__": "", "deep/er": "x = 1", "unused": ""}.items():
        (tmp_path / "pack" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    if "absent" in body:
        with pytest.raises(ConfigError, match=r"'pack\.absent'"):
            imported_sources("pack.main")
        return
    files = [str(path.relative_to(tmp_path / "pack")) for path in imported_sources("pack.main")]
    assert files == ["__init__.py", "deep/__init__.py", *(["deep/er.py"] if ".er" in body else []), "main.py"]
    with pytest.raises(ConfigError, match=r"'pack\.renamed'"):
        imported_sources("pack.renamed")
