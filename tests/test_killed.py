"""The checks that kill runs and compare what they end with, on small runs; and that they see a difference where there is one."""

import json
import shutil
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from safetensors.torch import load_file, save_file  # noqa: E402

import forked  # noqa: E402
from swirl_env.algos.embedded import SETTINGS, build_model, build_tokenizer  # noqa: E402
from swirl_env.algos.warm_start import WarmStart, fingerprint, save  # noqa: E402
from swirl_env.benchmarks import killed, killed_train  # noqa: E402
from swirl_env.types import Verdict  # noqa: E402

SMALL = ["judge=test_killed:Evens", "setting=easy", "max_steps=2", "model.max_new_tokens=8", "algo.episodes_per_update=4"]
SMALL += ["slots=4", "budget=null", "updates=6", "eval.episodes=2", "eval.quick=2"]


class Evens:
    """Calls actions of an even number of characters GOOD: some signal in every state, however weak the policy."""

    def judge(self, steps):
        return [Verdict.bad() if len(step.action.text) % 2 else Verdict.good() for step in steps]


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """A cache with the warm start of a setting: one that was never trained."""
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the judge
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tokenizer = build_tokenizer()
    folder = tmp_path / "cache/warm-starts" / f"easy-0-{fingerprint(SETTINGS['easy'], 0, WarmStart())}"
    save(build_model(len(tokenizer), 0), tokenizer, folder)


@pytest.mark.slow
def test_a_killed_training_run_ends_like_an_unbroken_one(untrained, capsys, monkeypatch):
    processes = []

    def start(command, folder):
        processes.append(forked.start([*command[1:], f"out={folder}"]))
        return processes[-1]

    monkeypatch.setattr(killed_train, "_started", start)
    assert killed_train.main(["--kills", "1", "--algos", "return_to_go", "--options", *SMALL]) == 0
    assert len([process.communicate() for process in processes]) == 3  # the whole run, the killed one, the one that went on
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("return_to_go: 6 updates in ")
    assert second.startswith("  seed 0: killed ") and second.endswith("; identical")


@pytest.mark.slow
def test_killed_episodes_are_those_of_an_unbroken_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["killed", "--episodes", "60", "--kills", "1", "task=ledger"])
    assert killed.main() == 0
    assert "60 lines, 60 keys, each once: True; same content: True; same verdicts: True" in capsys.readouterr().out


def test_every_difference_is_told(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    (whole / "policy").mkdir(parents=True)
    save_file({"a": torch.zeros(3), "b": torch.ones(2)}, whole / "policy/model.safetensors")
    (whole / "policy/config.json").write_text("{}")
    (whole / "metrics.jsonl").write_text('{"update": 1}\n')
    (whole / "evaluation.json").write_text(json.dumps({"before": 1.0, "after": 2.0}))
    shutil.copytree(whole, broken)
    assert killed_train.differences(whole, broken) == []
    (broken / "evaluation.json").write_text(json.dumps({"after": 2.0, "before": 1.0}, indent=1))
    assert killed_train.differences(whole, broken) == []  # figures count, not how they are written

    held = load_file(whole / "policy/model.safetensors")
    held["a"][1] = -0.0  # equal to 0.0, and yet another bit
    save_file(held, broken / "policy/model.safetensors")
    (broken / "metrics.jsonl").write_text('{"update":  1}\n')
    (broken / "evaluation.json").write_text(json.dumps({"before": 1.0, "after": 2.5}))
    (broken / "policy/config.json").unlink()
    assert killed_train.differences(whole, broken) == [
        "metrics.jsonl differs",
        "only one run has policy/config.json",
        "policy/model.safetensors differs in 1 of 2 tensors",
        "evaluation.json differs",
    ]
