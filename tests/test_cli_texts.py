"""Prompts, system messages, examples and rubrics as options of every stage: as a text, a file or a name, recorded by content."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import shell
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from commands import error_of
from swirl_env import registry
from swirl_env.config.options import episode_defaults
from swirl_env.config.overrides import command, override, readable
from swirl_env.stages.run_yaml import read_yaml, write_yaml
from swirl_env.store import Store
from swirl_env.types import Action, State

BRIEF = "Be brief.\nAlways."
ODD = "Say {a} and ${b}, ${c:d} or \"e\", 'f', #g; 100 %\n- yes: no\n\n  indented\tü 日本 \\n \\$"
FAKES = ["task=fakes:SumTasks", "agent=fakes:EchoAgent", "tool=fakes:EchoTool", "judge=none"]
SEEN = Path("seen.jsonl")
"""Prompts that the model below was sent."""


def seen():
    return [json.loads(line) for line in SEEN.read_text().splitlines()]


class Approves:
    """A model that finds everything good, and all answers right if they are short."""

    def act(self, states: Sequence[State]) -> list[Action]:
        with SEEN.open("a") as file:
            file.writelines(f"{json.dumps(state.turns[0].text)}\n" for state in states)
        return [Action("It is short.\n" + ("YES" if "Say YES or NO" in s.turns[0].text else "Verdict: GOOD")) for s in states]


def config_of(folder):
    return yaml.safe_load(Path(folder, "config.yaml").read_text())


def prompts_of(folder):
    return {trajectory.prompt for trajectory in Store(folder, "r")}


@pytest.fixture(autouse=True)
def package(tmp_path_factory, monkeypatch):
    """An installed package that registers a text and a prompt function."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "terse_texts.py").write_text(
        f"BRIEF = {BRIEF!r}\nNUMBER = 5\nASK = 'Now: {{question}}'\ndef ask(task, fields):\n    return 'Then: ' + task.question\n"
    )
    info = folder / "terse_texts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: terse-texts\nVersion: 1.0\n")
    names = "brief = terse_texts:BRIEF\nask = terse_texts:ASK\nasking = terse_texts:ask\n"
    (info / "entry_points.txt").write_text(f"[swirl_env.prompts]\n{names}")
    monkeypatch.syspath_prepend(str(folder))
    registry.entries.cache_clear()
    yield
    monkeypatch.undo()
    registry.entries.cache_clear()


@pytest.mark.parametrize("value", ["brief.txt", "brief", "terse_texts:BRIEF", BRIEF, f"{BRIEF}\n\n"])
def test_a_text_may_come_as_text_file_or_name(swirl, value):
    Path("brief.txt").write_text(f"\ufeff{BRIEF}\n", encoding="utf-8")
    for key in ("instructions", "examples"):
        code, _, err = swirl("generate", *FAKES, "n=2", f"out={key}", override(key, value))
        assert code == 0, err
        assert config_of(key)[key] == f"{BRIEF}\n"
        (prompt,) = {text.rpartition("Question: ")[0] for text in prompts_of(key)}
        assert prompt.startswith(f"{BRIEF}\n\n") if key == "instructions" else prompt.endswith(f"\n\n{BRIEF}\n\n")


@pytest.mark.parametrize(
    ("value", "first", "stored"),
    [
        ("ask.md", "Now: What is 0 + 1?", "Now: {question}"),
        ("ask", "Now: What is 0 + 1?", "Now: {question}"),
        ("terse_texts:ASK", "Now: What is 0 + 1?", "Now: {question}"),
        ("Now: {question}", "Now: What is 0 + 1?", "Now: {question}"),
        ("question", "What is 0 + 1?", "question"),
        ("asking", "Then: What is 0 + 1?", "asking"),
    ],
)
def test_a_prompt_may_come_as_text_file_or_name(swirl, value, first, stored):
    Path("ask.md").write_text("Now: {question}\n")
    code, _, err = swirl("generate", *FAKES, "n=1", "out=run", override("prompt", value))
    assert code == 0 and prompts_of("run") == {first}, err
    assert config_of("run")["prompt"] == stored


def test_a_file_that_was_moved_or_edited_changes_no_run_that_goes_on(swirl):
    for name in ("one.txt", "two.txt", "three.txt"):
        Path(name).write_text(f"{ODD}\n{name}\n")
    Path("three.txt").write_text("{instructions}\n{examples}\n{question}")
    files = ["instructions=one.txt", "examples=two.txt", "prompt=three.txt"]
    assert swirl("generate", *FAKES, *files, "n=2", "out=run")[0] == 0
    (before,) = {text.rpartition("\n")[0] for text in prompts_of("run")}
    assert before == f"{ODD}\none.txt\n{ODD}\ntwo.txt"
    assert swirl("generate", "out=run", "resume=true", "n=3", *FAKES, *files)[0] == 0  # they may be repeated
    Path("one.txt").write_text("Another text.")
    assert "instructions was Say {a}" in error_of(swirl("generate", "out=run", "resume=true", *FAKES, *files, "n=4"))
    Path("two.txt").unlink()
    code, out, err = swirl("generate", "out=run", "resume=true", "n=5", *FAKES)
    assert code == 0 and "5 episodes" in out, err
    assert {text.rpartition("\n")[0] for text in prompts_of("run")} == {before} and len(prompts_of("run")) == 5


def test_a_stored_text_is_no_file_and_no_name(swirl):
    """A run folder from somebody else cannot make a file of this machine part of a prompt."""
    assert swirl("generate", *FAKES, "n=1", "out=run", "instructions=x")[0] == 0
    Path("secret.txt").write_text("the secret")
    file = Path("run/config.yaml")
    for value in ("secret.txt", "terse_texts:BRIEF", "brief"):
        file.write_text(
            file.read_text().replace("x\n", f"{value}\n", 1)
            if value == "secret.txt"
            else write_yaml({**config_of("run"), "instructions": value})
        )
        for trajectory in Path("run/trajectories").glob("*.jsonl"):
            trajectory.unlink()
        assert swirl("generate", "out=run", "resume=true", *FAKES)[0] == 0
        assert all(text.startswith(f"{value}\n") for text in prompts_of("run"))


def test_code_that_a_stored_prompt_names_is_named_again(swirl):
    assert swirl("generate", *FAKES, "prompt=terse_texts:ask", "n=1", "out=run")[0] == 0
    assert "names code to run: prompt=terse_texts:ask" in error_of(swirl("generate", "out=run", "resume=true", *FAKES, "n=2"))
    assert swirl("generate", "out=run", "resume=true", "n=2", *FAKES, "prompt=terse_texts:ask")[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["instructions=no/such/file.txt"], "instructions: there is no file 'no/such/file.txt'"),
        (["examples=shots.md"], "examples: there is no file 'shots.md'"),
        (["instructions=terse_texts:SHORT"], "has no 'SHORT'"),
        (["instructions=terse_texts:NUMBER"], "instructions=terse_texts:NUMBER is no text but a int"),
        (["examples=terse_texts:ask"], "examples=terse_texts:ask is no text but a function"),
        (["instructions=latin"], "instructions: the file 'latin' cannot be read as text"),
        (["prompt=brief"], "The prompt in 'brief' has no {question}"),
        (["prompt=asl"], "Did you mean 'ask'?"),
        (["prompt=Now: {question}", "examples=x"], "The prompt has no {examples}, so examples= would be lost"),
        (["grader=llm"], "The grader 'llm' needs a value for 'agent'"),
        (["grader=lm"], "No grader named 'lm'. Did you mean 'llm'?"),
    ],
)
def test_texts_that_cannot_be_meant_are_refused_before_anything_is_written(swirl, words, says):
    Path("latin").write_bytes(b"caf\xe9")
    words = [override(*word.split("=", 1)) if ": " in word else word for word in words]
    assert says in error_of(swirl("generate", *FAKES, *words, "n=1", "out=run"))
    assert not Path("run").exists()


# Rubrics of judges and graders.


def test_a_rubric_reaches_the_model_and_names_its_table(swirl):
    assert swirl("generate", *FAKES, "n=2", "out=run")[0] == 0
    Path("rubric.md").write_text("GOOD if it is short, {else} BAD.\n")
    model = "judge.agent=test_cli_texts:Approves"
    for words in ([], ["judge.rubric=rubric.md"], ["judge.rubric='Always GOOD.'"]):
        code, _, err = swirl("judge", "out=run", "judge=llm", model, *words)
        assert code == 0, err
    assert len(Store("run", "r").judges()) == 3
    shown = [text.split("\n\n")[1] for text in seen()]
    assert shown[0].startswith("- If it calls a tool") and "GOOD if it is short, {else} BAD." in shown and "Always GOOD." in shown
    assert all("Lines that begin with a bar" in text for text in seen())


def test_a_rubric_is_recorded_and_a_run_that_goes_on_keeps_it(swirl):
    Path("rubric.md").write_text(f"{ODD}\n")
    words = [*FAKES[:3], "judge=llm", "judge.agent=test_cli_texts:Approves"]
    assert swirl("generate", *words, "judge.rubric=rubric.md", "n=1", "out=run")[0] == 0
    assert config_of("run")["judge"]["rubric"] == f"{ODD}\n"
    Path("rubric.md").unlink()
    assert swirl("generate", *words, "out=run", "resume=true", "n=2")[0] == 0
    assert len(Store("run", "r").judges()) == 1 and all(ODD in text for text in seen())


def test_a_grader_decides_accuracy_on_every_command(swirl):
    grader = ["grader=llm", "grader.agent=test_cli_texts:Approves", "grader.rubric='Is {it} short?'"]
    wrong = ["task=ledger", "agent=random", "agent.answer_rate=1", "n=4"]
    code, out, err = swirl("generate", *wrong, *grader, "out=graded")
    if "answer_rate" in err:
        wrong.remove("agent.answer_rate=1")
        code, out, err = swirl("generate", *wrong, *grader, "out=graded")
    assert code == 0, err
    answered = [t for t in Store("graded", "r") if t.outcome.answer]
    assert all(t.outcome.correct for t in answered) and config_of("graded")["grader"]["rubric"] == "Is {it} short?\n"
    assert all("Is {it} short?\nSay YES or NO" in text for text in seen())
    assert swirl("generate", *FAKES, "n=4", "out=plain")[0] == 0
    assert swirl("eval", "out=plain")[0] == 0
    before = Path("plain/evaluation.json").read_bytes()
    code, out, err = swirl("eval", "out=plain", *grader)
    assert code == 0 and "graded by llm_grader-" in out, err
    assert Path("plain/evaluation.json").read_bytes() == before
    (again,) = Path("plain").glob("evaluation.llm_grader-*.json")
    assert json.loads(again.read_text())["accuracy"]["value"] >= json.loads(before)["accuracy"]["value"]


# What is written can be read.


@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("${}'\"\\\n=,"),
        min_size=1,
        max_size=40,
    )
)
def test_a_printed_text_is_what_the_command_line_reads(text):
    (word,) = shell.words(command(override("instructions", f"{text}\n")))
    (parsed,) = OverridesParser.create().parse_overrides([readable(word)])
    assert OmegaConf.create({"text": parsed.value()})["text"] == f"{text}\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1, max_size=8), JSON, max_size=4))
def test_a_configuration_is_read_back_as_it_was_written(config):
    if config:
        assert read_yaml(write_yaml(config).encode()) == config


LOOKS = [*"2026-11-27 1e-3 1_000 0x1F 017 on ~ null = << 12:30 {a} *a \x85".split(" "), "", ODD, "- a", "a: b", "a\rb\n"]


@pytest.mark.parametrize("text", LOOKS)
def test_texts_that_look_like_something_else_stay_texts(text):
    config = {"a": text, "b": [text, {"c": text}], "n": 1e-05, "m": 1e22, "same": (text, text)}
    assert read_yaml(write_yaml(config).encode()) == {**config, "same": [text, text]}


def test_defaults_of_episodes_are_complete():
    assert {"instructions", "examples", "grader", "prompt"} <= episode_defaults().keys()
