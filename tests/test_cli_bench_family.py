"""``swirl bench part=training`` with the step-credit family: every algorithm in one table."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("matplotlib", reason="the curves need matplotlib")

from swirl_env.algos.warm_start import WarmStart, is_cached, warm_start  # noqa: E402
from swirl_env.benchmarks.warm_starts import train_warm_starts  # noqa: E402
from swirl_env.errors import SwirlError  # noqa: E402
from swirl_env.registry import names  # noqa: E402
from weak import put_warm_starts  # noqa: E402

pytestmark = pytest.mark.slow

FAMILY = ["mt_grpo", "mt_grpo_unbiased", "gigpo", "hgpo", "igpo", "trace", "evidence", "vine", "tree_grpo", "slate", "pivot"]
FAMILY += ["turn_ppo", "step_dpo", "implicit_prm"]
"""Arms of conf/bench.yaml."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache with a warm start that is right often enough for outcomes to differ."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE_DIR", str(root))
        patch.setenv("OMP_NUM_THREADS", "1")
        put_warm_starts(root, "easy", updates=500)
        yield root


def test_warm_starts_trained_side_by_side_are_those_trained_one_by_one(cache, tmp_path, capfd):
    few = WarmStart(updates=2, batch=2, worlds=1)
    train_warm_starts([("easy", 0), ("easy", 1)], 2, few)
    for seed in (0, 1):
        assert is_cached("easy", seed, few)
        one, other = (warm_start("easy", seed, config=few, cache_dir=folder) for folder in (cache, tmp_path))
        assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    train_warm_starts([("easy", 0), ("easy", 1)], 2, few)  # nothing is left to do
    capfd.readouterr()
    with pytest.raises(SwirlError) as failure:
        train_warm_starts([("easy", 0), ("easy", 1)], 2, WarmStart(updates=2, kinds=("no such kind",)))
    head, *reasons = str(failure.value).split("easy, seed ")
    assert head == "2 of 2 warm starts failed. "
    assert sorted(reason[:3] for reason in reasons) == ["0: ", "1: "] and all("no such kind" in reason for reason in reasons)
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("train 2 warm starts: ")]
    assert said == []


def test_the_whole_family_trains_in_one_table(swirl):
    assert set(FAMILY) - {"evidence"} <= set(names("algo"))
    few = ["setting=easy", "budget=1200", "episodes=3", "out=b", "arms.pivot.algo.questions=16"]
    code, out, err = swirl("bench", "part=training", f"algos=[reinforce,{','.join(FAMILY)}]", *few)
    assert code == 0, err
    rows = json.loads(Path("b/bench.json").read_text())["training"]
    assert [row["name"] for row in rows] == ["warm start", "reinforce", *FAMILY]
    assert all(row["sampled"][0] >= 1200 and row["trained"][0] > 0 for row in rows[1:])
    table = Path("b/bench.md").read_text()
    assert all(f"| {name} |" in table for name in FAMILY) and "evidence" in out


@pytest.mark.parametrize("name", ["turn_ppo", "implicit_prm"])
def test_a_run_that_goes_on_ends_with_the_bits_of_one_that_never_stopped(name, swirl):
    # Outcomes of so weak a policy may all be alike; verdicts and implicit rewards are not.
    sizes = {
        "turn_ppo": ["algo.episodes_per_update=8", "algo.reward_weight=1.0"],
        "implicit_prm": ["algo.questions_per_update=8", "algo.samples=4"],
    }[name]
    few = [f"algo={name}", *sizes, "setting=easy", "eval.episodes=0", "slots=16", "save_every=2"]
    code, _, err = swirl("train", *few, "updates=4", "out=whole")
    assert code == 0, err
    assert swirl("train", *few, "updates=2", "out=parts")[0] == 0
    code, _, err = swirl("train", "out=parts", "updates=4", "save_every=2", "resume=true")
    assert code == 0, err
    files = [*sorted(Path("whole/checkpoints").glob("*4/*.safetensors")), Path("whole/policy/model.safetensors")]
    assert len(files) >= 3  # policy, optimizer, and the critic or reward model with its own
    assert any({"turn_ppo": "critic", "implicit_prm": "prm"}[name] in file.name for file in files), files
    for file in files:
        assert file.read_bytes() == Path("parts", *file.parts[1:]).read_bytes(), file
    assert Path("whole/metrics.jsonl").read_text() == Path("parts/metrics.jsonl").read_text()
