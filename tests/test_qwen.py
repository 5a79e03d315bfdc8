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
from swirl_env.benchmarks.qwen.plan import (
    ARMS,
    JUDGES,
    SETS,
    evaluation_name,
    judging_name,
    plan,
    rows_of,
    unfinished,
    write_prompts,
)
from swirl_env.benchmarks.qwen.prompts import PROMPTS
from swirl_env.benchmarks.qwen.record import Measurements, file_of, gathered, load, measured, save, settings_of
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
    first, second = named["warm start on hotpotqa"], named["warm start on gsm8k"]
    assert (first["stored"], second["stored"]) == ("[x/own/hotpotqa]", "[x/own/gsm8k]")
    assert second["model.adapter"] == f"{first['out']}/policy" and second["out"] == "x/warm"
    assert (first["updates"], second["updates"]) == ("4", "30"), "alike many passes over what is right"
    for stage, name in ((first, "hotpotqa"), (second, "gsm8k")):
        own = named[f"own rollouts on {name}"]
        assert stage["model.system"] == own["agent.system"] == f"x/prompts/{name}.txt"
        assert own["agent.shots"] == f"x/prompts/{name}.json"
        assert "model.shots" not in stage and stage["stored_prompts"] == "own"


def test_only_the_base_model_is_shown_worked_conversations():
    shown = {stage.name for stage in stages() if any("shots=" in word for word in stage.words)}
    rows = {f"base, tested on {name}" for name in SETS} | {f"own rollouts on {name}" for name in SETS}
    assert shown == rows


def run_of(out, policy, right):
    """Puts the runs of a test of a policy in place: four questions, the ones in `right` answered; returns its row."""
    rows = rows_of(parse(["--model", "m", "--out", str(out)]))
    row = next(row for row in rows if row.policy == policy)
    with Store(out / row.folder) as store:
        for n in range(4):
            store.append(episode(f"q{n}", correct=n in right, labels=("GOOD", "BAD")))
            if policy == "base":
                store.append_verdicts("llm-1", (f"q{n}", 0), [Verdict.good(), Verdict.failed("?") if n else Verdict.good()])
    (out / row.folder / "evaluation.json").write_text(json.dumps(evaluate(Store(out / row.folder, "r")).to_dict()))
    return row


def adapter(out, content):
    (out / "warm/policy").mkdir(parents=True, exist_ok=True)
    (out / "warm/policy/adapter_model.safetensors").write_bytes(content)


def spent(*names):
    return [{"stage": name, "command": "judge", "folder": "none", "seconds": 60, "cpu_seconds": 90} for name in names]


SMALL = settings_of(parse([]))
ALL = [stage.name for stage in stages()]


def test_the_page_keeps_its_text_and_says_what_was_not_run(tmp_path):
    page, out = tmp_path / "page.md", tmp_path / "runs"
    page.write_text(f"# Title\n{place('figures', 'old')}After.\n")
    run_of(out, "base", {1, 2, 3})
    rows = rows_of(parse(["--model", "m", "--out", str(out)]))
    held = gathered(Measurements(SMALL), out, rows, spent(judging_name("llm")))
    write_figures(page, held, rows, ALL)
    text = page.read_text()
    assert text.startswith("# Title\n") and text.endswith("\nAfter.\n") and "old" not in text
    lines = [line for line in text.splitlines() if line.startswith("| base | gsm8k ")]
    assert "| 75.0 |" in lines[0] and text.count("not run yet") == len(rows) - 1
    (judge,) = [line for line in text.splitlines() if line.startswith("| llm |")]
    assert judge.split(" | ")[1:3] == ["8", "37.5"] and "80.0" in judge  # 8 steps, 3 failed; 4 of 5 agree
    write_figures(page, held, rows, ALL)
    assert page.read_text() == text and f"1 of {len(ALL)} stages" in text


def test_a_judge_that_was_interrupted_is_not_on_the_page(tmp_path):
    run_of(tmp_path, "base", {1})
    rows = rows_of(parse(["--model", "m", "--out", str(tmp_path)]))
    assert gathered(Measurements(SMALL), tmp_path, rows, []).judges == []


def test_what_one_machine_measured_is_not_run_again_on_the_next(tmp_path):
    page, rows = tmp_path / "page.md", rows_of(parse(["--model", "m", "--out", str(tmp_path / "first")]))
    first, second = tmp_path / "first", tmp_path / "second"
    run_of(first, "base", {0})
    adapter(first, b"1")
    run_of(first, "warm start", {0, 1})
    run_of(first, "grpo on gsm8k", {0, 1, 2})
    save(page, gathered(Measurements(SMALL), first, rows, spent(*map(judging_name, JUDGES))))
    held = load(page, SMALL)
    assert all(len(line) < 3000 for line in file_of(page).read_text().splitlines())
    wanted = unfinished(stages(), measured(held, second))
    done = {evaluation_name(policy, "gsm8k") for policy in ("warm start", "grpo on gsm8k")}
    # Also wanted: grpo again, for its test on the other set, and the test of the base model, for the judge that is missing.
    assert wanted == set(ALL) - done - {judging_name("llm")}


def test_an_arm_with_nothing_to_train_on_is_a_result_and_not_run_again(tmp_path):
    page, rows = tmp_path / "page.md", rows_of(parse(["--model", "m", "--out", str(tmp_path)]))
    (tmp_path / "arm").mkdir()
    (tmp_path / "arm/metrics.jsonl").write_text('{"sampled_tokens": 5}\n{"sampled_tokens": 21000, "trained_tokens": 0}\n')
    ended = {"stage": "grpo on gsm8k", "command": "train", "folder": tmp_path / "arm", "seconds": 60, "cpu_seconds": 90}
    save(page, gathered(Measurements(SMALL), tmp_path, rows, [{**ended, "code": 2}]))
    held = load(page, SMALL)
    write_figures(page, held, rows, ALL)
    assert "| grpo on gsm8k | gsm8k | no policy: nothing to train on |" in page.read_text()
    assert "| grpo on gsm8k | 1 | 2 | 21,000 | 0 | - |" in page.read_text()
    wanted = unfinished(stages(), measured(held, tmp_path / "next"))
    assert not any(name.startswith("grpo on gsm8k") for name in wanted) and "grpo on hotpotqa" in wanted
    assert gathered(held, tmp_path, rows, []).untrained == ["grpo on gsm8k"]
    assert gathered(held, tmp_path, rows, [{**ended, "code": 0}]).untrained == []
    refused = {**ended, "code": 2, "folder": tmp_path / "not begun"}
    assert gathered(Measurements(SMALL), tmp_path, rows, [refused]).untrained == [], "a refused option is no result"


def test_nothing_is_wanted_when_all_was_measured():
    everything = {stage.name for stage in stages()}
    assert unfinished(stages(), everything) == set()
    wanted = unfinished(stages(), everything - {"rft on hotpotqa, tested on gsm8k"})
    before = {f"{what} on {name}" for what in ("own rollouts", "warm start") for name in SETS}
    assert wanted == before | {"rft on hotpotqa", "rft on hotpotqa, tested on gsm8k"}
    assert unfinished(stages(), everything - {judging_name("llm")}) == {judging_name("llm"), "base, tested on gsm8k"}


def test_an_arm_is_compared_with_the_warm_start_that_it_began_with(tmp_path):
    page, rows = tmp_path / "page.md", rows_of(parse(["--model", "m", "--out", str(tmp_path / "first")]))
    first, second = tmp_path / "first", tmp_path / "second"
    adapter(first, b"1")
    run_of(first, "warm start", {0, 1})
    run_of(first, "grpo on gsm8k", {0, 1, 2})
    held = gathered(Measurements(SMALL), first, rows, [])
    adapter(second, b"2")
    run_of(second, "rft on gsm8k", {0})
    held = gathered(held, second, rows, [])
    assert evaluation_name("warm start", "gsm8k") in unfinished(stages(), measured(held, second))
    write_figures(page, held, rows, ALL)
    lines = {line.split(" | ")[0][2:].strip(): line for line in page.read_text().splitlines() if " | gsm8k | 4 |" in line}
    starts = {name.partition(" (")[2][:-1] for name in lines}
    assert len(lines) == 3 and len(starts) == 2 and "" not in starts
    assert "+25.0 ±" in next(line for name, line in lines.items() if name.startswith("grpo"))
    assert next(line for name, line in lines.items() if name.startswith("rft")).split(" | ")[5] == ""
    run_of(second, "warm start", {0, 2, 3})
    write_figures(page, gathered(held, second, rows, []), rows, ALL)
    assert "| -50.0 ±" in next(line for line in page.read_text().splitlines() if line.startswith("| rft on gsm8k ("))


@pytest.mark.parametrize("content", ["", "[]", '{"settings": {"held_out": "x"}}', "\x00"])
def test_measurements_that_cannot_be_read_are_named_and_left_alone(tmp_path, capsys, content):
    page = tmp_path / "page.md"
    file_of(page).write_text(content)
    assert main(["--model", "m", "--page", str(page), "--out", str(tmp_path / "run")]) == 2
    assert str(file_of(page)) in capsys.readouterr().err
    assert file_of(page).read_text() == content and not (tmp_path / "run").exists()


def test_the_figures_alone_make_no_folder(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- figures: begin -->\n<!-- figures: end -->\n")
    save(page, Measurements(SMALL))
    assert main(["--model", "m", "--page", str(page), "--out", str(tmp_path / "run"), "--figures"]) == 0
    assert "0 of 46 stages" in page.read_text() and not (tmp_path / "run").exists()


def test_measurements_of_other_settings_are_refused(tmp_path, capsys):
    page = tmp_path / "page.md"
    save(page, Measurements(SMALL))
    assert main(["--model", "m", "--page", str(page), "--budget", "7", "--out", str(tmp_path / "run")]) == 2
    assert f"--budget {SMALL['budget']}" in capsys.readouterr().err and not (tmp_path / "run").exists()


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


def test_a_page_without_a_place_for_figures_is_left_alone(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("mine")
    assert main(["--model", "m", "--page", str(page), "--out", str(tmp_path / "run")]) == 2
    assert "no place for the figures" in capsys.readouterr().err
    assert page.read_text() == "mine" and not (tmp_path / "run").exists()


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert main(["--model", "m", "--dry-run", "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith("swirl eval task=gsm8k") and not (tmp_path / "run").exists()
