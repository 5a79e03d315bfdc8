"""The benchmark of the 0.5B model: its stages are commands that compose, and its page tells what was run from what was not."""

import json
from itertools import pairwise

import pytest

pytest.importorskip("torch", reason="training needs torch")

from stored import SETTINGS, episode
from swirl_env.benchmarks.places import place
from swirl_env.benchmarks.qwen.__main__ import main, parse
from swirl_env.benchmarks.qwen.mistakes import KINDS, kind_of
from swirl_env.benchmarks.qwen.page import write_figures
from swirl_env.benchmarks.qwen.plan import ARMS, SETS, plan, rows_of, write_prompts
from swirl_env.benchmarks.qwen.prompts import PROMPTS
from swirl_env.episodes.formats import NativeFormat
from swirl_env.episodes.shots import read_shots
from swirl_env.evaluate import evaluate
from swirl_env.store import Store
from swirl_env.tools.calculator import Calculator
from swirl_env.types import Action, Answer, Malformed, Outcome, Step, Task, ToolCall, ToolResult, Trajectory, Verdict


def stages(*argv):
    return list(plan(parse(["--model", "m", *argv])))


def words(stage):
    return dict(word.partition("=")[::2] for word in stage.words[1:])


def test_arms_begin_at_the_warm_start_with_one_budget_and_are_tested_on_both_sets():
    named = {stage.name: words(stage) for stage in stages("--out", "x", "--budget", "900")}
    for arm in ARMS:
        for name in SETS:
            options = named[f"{arm} on {name}"]
            assert (options["model.adapter"], options["budget"]) == ("x/warm/policy", "900")
            for test in SETS:
                assert named[f"{arm} on {name}, tested on {test}"]["agent.adapter"] == f"{options['out']}/policy"
    folders = [words(stage)["out"] for stage in stages() if stage.words[0] != "judge"]
    assert len(folders) == len(set(folders))


def test_no_question_is_in_two_parts():
    named = {stage.name: words(stage) for stage in stages("--held-out", "50", "--own", "70")}
    assert named["own rollouts on gsm8k"]["n"] == "140" and named["grpo on gsm8k"]["task.skip"] == "70"
    assert named["own rollouts on hotpotqa"]["task.split"] == "train100"
    assert named["grpo on hotpotqa"]["task.skip"] == "50" == named["base, tested on hotpotqa"]["n"]


def test_every_command_composes(swirl):
    kinds = {tuple(word.partition("=")[0] for word in stage.words): stage for stage in stages()}  # one of each set of keys
    assert len(kinds) > 8 and {"eval", "judge", "generate", "train"} == {kind[0] for kind in kinds}
    for stage in kinds.values():
        code, _, err = swirl(*stage.words, "--cfg", "job")
        assert code == 0, (stage.words, err)


@pytest.mark.parametrize("name", SETS)
def test_the_worked_conversations_are_read_and_right(name, tmp_path):
    write_prompts(parse(["--model", "m", "--out", str(tmp_path)]))
    messages = read_shots(str(tmp_path / "prompts" / f"{name}.json"))
    prompt = PROMPTS[name]
    assert (tmp_path / "prompts" / f"{name}.txt").read_text().strip() == prompt.system
    form = NativeFormat((prompt.tool,))
    for before, message in pairwise(messages):
        if message["role"] != "assistant":
            continue
        parsed = form.parse(message["content"])
        if isinstance(parsed, Answer):  # what it says has come back, or follows from two results (yes, no, which of them)
            assert before["role"] == "tool" and (name == "hotpotqa" or before["content"] == parsed.text)
        else:
            assert isinstance(parsed, ToolCall)
    assert len(prompt.shots) == sum(message["role"] == "user" for message in messages) >= 3


def test_the_sums_of_the_worked_conversations_are_right():
    calls = [call for shot in PROMPTS["gsm8k"].shots for call in shot.calls]
    assert [result.text for result in Calculator().run([call.query for call in calls])] == [call.result for call in calls]
    assert all(call.query.count("=") > 1 for call in calls)  # quantities by name


def test_the_two_warm_starts_follow_one_another():
    named = {stage.name: words(stage) for stage in stages("--out", "x")}
    first, second = named["warm start on gsm8k"], named["warm start on hotpotqa"]
    assert (first["stored"], second["stored"]) == ("[x/own/gsm8k]", "[x/own/hotpotqa]")
    assert second["model.adapter"] == f"{first['out']}/policy" and second["out"] == "x/warm"
    for stage, name in ((first, "gsm8k"), (second, "hotpotqa")):
        own = named[f"own rollouts on {name}"]
        assert stage["model.system"] == own["agent.system"] == f"x/prompts/{name}.txt"
        assert own["agent.shots"] == f"x/prompts/{name}.json"
        assert "model.shots" not in stage and stage["stored_prompts"] == "own"


def test_only_the_base_model_is_shown_worked_conversations():
    shown = {stage.name for stage in stages() if any("shots=" in word for word in stage.words)}
    rows = {f"base, tested on {name}" for name in SETS} | {f"own rollouts on {name}" for name in SETS}
    assert shown == rows


def test_the_page_keeps_its_text_and_says_what_was_not_run(tmp_path):
    page, out = tmp_path / "page.md", tmp_path / "runs"
    page.write_text(f"# Title\n{place('figures', 'old')}After.\n")
    rows = rows_of(parse(["--model", "m", "--out", str(out)]))
    base = next(row for row in rows if row.policy == "base")
    with Store(out / base.folder) as store:
        for n in range(4):
            store.append(episode(f"q{n}", correct=n > 0, labels=("GOOD", "BAD")))
            store.append_verdicts("llm-1", (f"q{n}", 0), [Verdict.good(), Verdict.failed("?") if n else Verdict.good()])
    (out / base.folder / "evaluation.json").write_text(json.dumps(evaluate(Store(out / base.folder, "r")).to_dict()))
    write_figures(page, out, rows, [], 40)
    text = page.read_text()
    assert text.startswith("# Title\n") and text.endswith("\nAfter.\n") and "old" not in text
    lines = [line for line in text.splitlines() if line.startswith("| base | gsm8k ")]
    assert "| 75.0 |" in lines[0] and text.count("not run yet") == len(rows) - 1
    (judge,) = [line for line in text.splitlines() if line.startswith("| llm |")]
    assert judge.split(" | ")[1:3] == ["8", "37.5"] and "80.0" in judge  # 8 steps, 3 failed; 4 of 5 agree
    write_figures(page, out, rows, [], 40)
    assert page.read_text() == text


CALL, UNREAD = ToolCall("math_exp", "1 + 1", 0, 9), Malformed("What?", 0, 4)


@pytest.mark.parametrize(
    ("calls", "result", "answer", "kind"),
    [
        ([CALL], "2", "2", "right"),
        ([CALL], "3", "3", "its result as the answer, and it is wrong"),
        ([CALL], "3", "7", "an answer that is not its result"),
        ([CALL], "2", "5", "right value came back"),
        ([UNREAD], "", "5", "none of them read"),
        ([UNREAD, CALL], "3", "3", "its result as the answer"),
        ([], "", "5", "without a call"),
        ([CALL, CALL], "3", None, "the same call again"),
        ([UNREAD, UNREAD, CALL], "3", None, "could not be read"),
        ([CALL], "3", None, "other calls"),
    ],
)
def test_each_episode_is_counted_as_one_kind_of_mistake(calls, result, answer, kind):
    steps = [Step(Action("x"), call, ToolResult(result) if call is CALL else None) for call in calls]
    if answer:
        steps.append(Step(Action(answer), Answer(answer, 0, 1)))
    ended = "answered" if answer else "budget"
    outcome = Outcome(answer or "", answer == "2", float(answer == "2"))
    made = kind_of(Trajectory(Task("q", "?", "2"), SETTINGS, "?", tuple(steps), ended, outcome))
    assert kind in made and made in KINDS


def test_a_page_without_a_place_for_figures_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("mine")
    with pytest.raises(ValueError, match="no place for the figures"):
        write_figures(page, tmp_path, rows_of(parse(["--model", "m"])), [], 1)
    assert page.read_text() == "mine"


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert main(["--model", "m", "--dry-run", "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith("swirl eval task=gsm8k") and not (tmp_path / "run").exists()
