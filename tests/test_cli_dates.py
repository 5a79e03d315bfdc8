"""Prompts of a run that goes on tomorrow hold the date of the day on which it began."""

# ruff: noqa: E402 (the tests are skipped if torch is absent, so imports follow that check)
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from omegaconf import OmegaConf

import tiny_lm
from swirl_env.stages import dates
from swirl_env.store import Store


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    tiny_lm.llama(len(tiny_lm.tokenizer())).save_pretrained(folder)
    tiny_lm.tokenizer(tiny_lm.DATED).save_pretrained(folder)
    return str(folder)


def prompts(folder: str) -> list[str]:
    words = tiny_lm.tokenizer()
    return [words.decode(step.action.prompt_ids) for trajectory in Store(folder) for step in trajectory.steps]


@pytest.mark.parametrize("again", [[], ["agent=transformers", "agent.model={model}"]])
def test_a_resumed_run_keeps_its_date(again: list[str], swirl: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["task=ledger", "judge=none", "max_steps=1", "prompt=question", "agent.max_new_tokens=2", "agent.device=cpu"]
    begin = ["generate", "agent=transformers", f"agent.model={model}", *options, "out=run"]
    monkeypatch.setattr(dates, "_today", lambda: "2026-01-02")
    code, _, err = swirl(*begin, "n=2")
    assert code == 0, err
    assert OmegaConf.load("run/config.yaml").agent.date == "2026-01-02"
    monkeypatch.setattr(dates, "_today", lambda: "2031-05-06")
    code, _, err = swirl("generate", "out=run", "resume=true", "n=4", *(word.format(model=model) for word in again))
    assert code == 0, err
    assert len(prompts("run")) == 4 and all("Today is 02 Jan 2026." in prompt for prompt in prompts("run"))
    code, _, err = swirl(*begin[:-1], "out=other", "n=1")
    assert code == 0 and "Today is 06 May 2031." in prompts("other")[0], err


def test_a_date_that_was_set_stays(swirl: Any, model: str) -> None:
    options = ["task=ledger", "judge=none", "max_steps=1", "agent.max_new_tokens=2", "agent.device=cpu", "n=1", "out=run"]
    code, _, err = swirl("generate", "agent=transformers", f"agent.model={model}", "agent.date=2020-02-29", *options)
    assert code == 0 and "Today is 29 Feb 2020." in prompts("run")[0], err


def test_models_inside_judges_and_of_training_are_pinned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dates, "_today", lambda: "2026-01-02")
    judge = {"name": "weighted", "judges": {"llm": {"name": "llm", "agent": {"name": "transformers", "model": "m"}}}}
    inner = dates._pinned(judge, None)["judges"]["llm"]["agent"]
    assert inner == {"name": "transformers", "model": "m", "date": "2026-01-02"}
    assert dates._pinned(judge, judge)["judges"]["llm"]["agent"].get("date") is None, "an older run has none to keep"
    assert dates._pinned({"name": "scripted", "date": None}, None) == {"name": "scripted", "date": None}
