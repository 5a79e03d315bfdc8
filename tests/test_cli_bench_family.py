"""``swirl bench part=training`` with the step-credit family: every algorithm in one table."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("matplotlib", reason="the curves need matplotlib")

from swirl_env.algos.embedded import SETTINGS  # noqa: E402
from swirl_env.algos.warm_start import WarmStart, fingerprint, save  # noqa: E402
from swirl_env.algos.warm_start import train as warm  # noqa: E402
from swirl_env.registry import names  # noqa: E402

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
        model, tokenizer, _ = warm(SETTINGS["easy"], 0, WarmStart(updates=300, worlds=1))
        save(model, tokenizer, root / "warm-starts" / f"easy-0-{fingerprint(SETTINGS['easy'], 0, WarmStart())}")
        yield root


def test_the_whole_family_trains_in_one_table(swirl):
    assert set(FAMILY) - {"evidence"} <= set(names("algo"))
    few = ["setting=easy", "budget=800", "episodes=6", "out=b", "arms.pivot.algo.questions=16"]
    code, out, err = swirl("bench", "part=training", f"algos=[reinforce,{','.join(FAMILY)}]", *few)
    assert code == 0, err
    rows = json.loads(Path("b/bench.json").read_text())["training"]
    assert [row["name"] for row in rows] == ["warm start", "reinforce", *FAMILY]
    assert all(row["sampled"][0] >= 800 and row["trained"][0] > 0 for row in rows[1:])
    table = Path("b/bench.md").read_text()
    assert all(f"| {name} |" in table for name in FAMILY) and "evidence" in out
