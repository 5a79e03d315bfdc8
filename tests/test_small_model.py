"""The command that runs the whole loop with a small language model: its stages, its tables, and a run with a tiny one."""

import json
import math
import statistics

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import tiny_lm  # noqa: E402
from swirl_env import cli, make_tasks  # noqa: E402
from swirl_env.benchmarks.small_model.__main__ import main, parse, plan, rows_of  # noqa: E402
from swirl_env.benchmarks.small_model.report import Row, paired, report, transfer, work_cells  # noqa: E402
from swirl_env.benchmarks.stage_log import Log  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402
from swirl_env.evaluate import evaluate  # noqa: E402
from swirl_env.judges.rules import RulesJudge  # noqa: E402
from swirl_env.store import Store  # noqa: E402
from swirl_env.types import Action, Answer, Outcome, Settings, Step, Task, Trajectory, Verdict  # noqa: E402


def named(*argv):
    return {stage.name: dict(word.partition("=")[::2] for word in stage.words[1:]) for stage in plan(parse(argv))}


def test_stages_follow_one_another_and_the_table_goes_by_temperature_and_policy():
    options = parse(["--train", "ledger", "--test", "gsm8k", "--temperatures", "1,0"])
    stages = list(plan(options))
    assert [stage.name for stage in stages] == [
        "demonstrations of ledger",
        "warm start",
        "warm start on gsm8k at T=1",
        "warm start on gsm8k at T=0",
        "swirl on ledger",
        "swirl on ledger on gsm8k at T=1",
        "swirl on ledger on gsm8k at T=0",
        "base on gsm8k at T=1",
    ]
    rows = [(row.temperature, row.policy) for row in rows_of(stages, options)]
    assert rows == [(1, "base"), (1, "warm start"), (1, "swirl on ledger"), (0, "warm start"), (0, "swirl on ledger")]


def test_every_demonstration_is_seen_as_often_as_asked():
    warm = named("--demos", "40", "--warm-episodes", "10", "--passes", "2", "--out", "x")["warm start"]
    assert warm["updates"] == "16" and warm["stored"] == "[x/demos/ledger,x/demos/gsm8k]" and warm["lora.rank"] == "16"


def test_training_questions_are_none_of_the_demonstrated_ones():
    stages = named("--demos", "40", "--train", "ledger,gsm8k,hotpotqa", "--train-split", "hotpotqa=train100")
    assert stages["swirl on gsm8k"]["task.skip"] == "40" == stages["demonstrations of gsm8k"]["n"]
    assert stages["swirl on hotpotqa"]["task.skip"] == "40" and stages["swirl on hotpotqa"]["task.split"] == "train100"
    assert stages["swirl on ledger"]["task.seed"] == "1" and "task.seed" not in stages["demonstrations of ledger"]
    demonstrated, drawn = (make_tasks("ledger", split="train", size=200, seed=seed) for seed in (0, 1))
    assert not {t.question for t in map(demonstrated.__getitem__, range(200))} & {drawn[i].question for i in range(200)}


def test_each_policy_is_tested_on_every_set():
    stages = named("--train", "ledger", "--warm", "ledger,gsm8k", "--test", "gsm8k", "--out", "x", "--base-held-out", "0")
    assert [name for name in stages if " at T=1" in name] == ["warm start on gsm8k at T=1", "swirl on ledger on gsm8k at T=1"]
    assert stages["swirl on ledger on gsm8k at T=1"]["agent.adapter"] == stages["swirl on ledger"]["out"] + "/policy"
    assert stages["swirl on ledger"]["model.adapter"] == stages["warm start"]["out"] + "/policy"


@pytest.mark.parametrize("argv", [["--train", "legder"], ["--test-split", "gsm8k"], ["--demos", "0"]])
def test_mistakes_are_named(argv, capsys):
    with pytest.raises(SystemExit):
        parse(argv)
    said = capsys.readouterr().err
    assert any(word in said for word in ("Did you mean 'ledger'", "SET=SPLIT", "a number from 1"))


def test_a_dry_run_prints_commands_and_writes_nothing(tmp_path, capsys):
    assert main(["--dry-run", "--out", str(tmp_path / "run"), "--data-dir", "my data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 + 6 + 2 and all(line.startswith("SWIRL_DATA_DIR='my data' swirl ") for line in lines)
    assert not (tmp_path / "run").exists()


def test_only_what_ended_well_with_the_same_words_is_done(tmp_path):
    log = Log(tmp_path / "stages.jsonl")
    log.add("warm start", ["train", "out=w"], 130, 2.0, 3.0)
    assert not log.done("warm start", ["train", "out=w"])
    log.add("warm start", ["train", "out=w"], 0, 4.0, 5.0)
    again = Log(tmp_path / "stages.jsonl")
    assert again.done("warm start", ["train", "out=w"]) and not again.done("warm start", ["train", "out=v"])
    assert again.spent(["warm start", "never run"]) == [
        {"stage": "warm start", "command": "train", "folder": "w", "code": 0, "seconds": 6.0, "cpu_seconds": 8.0}
    ]


def episode(task, right):
    verdict = Verdict.good() if right else Verdict.bad()
    step = Step(Action("<answer>1</answer>", (1, 2, 3)), Answer("1", 0, 18), verdict=verdict)
    settings, outcome = Settings(("math_exp",), 3), Outcome("1", right, float(right))
    return Trajectory(Task(task, "?", "1"), settings, "?", (step,), "answered", outcome)


def held(out, folder, right):
    with Store(out / folder) as store:
        for number, correct in enumerate(right):
            store.append(episode(f"q{number}", correct))
    results = {"verdicts": "rules", **evaluate(Store(out / folder, "r")).to_dict()}
    (out / folder / "evaluation.json").write_text(json.dumps(results))


def test_tables_from_stored_evaluations(tmp_path):
    rows = [Row("warm start", "ledger", 1.0, "a"), Row("swirl on ledger", "ledger", 1.0, "b"), Row("base", "ledger", 1.0, "c")]
    held(tmp_path, "a", [True, False, False, False])
    held(tmp_path, "b", [True, True, True, False])
    gains = [0, 1, 1, 0]
    mean, half = paired({f"q{i}": float(x) for i, x in enumerate([1, 1, 1, 0])}, {f"q{i}": float(i == 0) for i in range(4)})
    assert mean == 0.5 and math.isclose(half, 3.1824 * statistics.stdev(gains) / 2, rel_tol=5e-3)  # t of 3 degrees
    assert [row["tested on ledger"] for row in transfer(tmp_path, rows, 1.0)] == ["25.0", f"75.0 (+50.0 ± {100 * half:.1f})", "-"]
    b = {"stage": "b", "command": "eval", "folder": str(tmp_path / "b"), "seconds": 61.0, "cpu_seconds": 99.4}
    text = report(tmp_path, rows, [b])
    assert "| swirl on ledger | ledger | 1 | 4 | 75.0 |" in text and "| b | 61 | 99 | 12 | 0 | 4 |" in text
    assert "| base | ledger" not in text


def test_the_work_of_a_stage_is_its_own(tmp_path):
    held(tmp_path, "run", [True, True, False, False])  # 4 steps of 3 tokens
    columns = ("sampled tokens", "trained tokens", "judge calls")

    def work(command, folder="run"):
        return tuple(work_cells({"command": command, "folder": str(tmp_path / folder)})[column] for column in columns)

    assert work("eval") == ("12", "0", "4")
    assert work("judge") == ("-", "0", "4")  # the tokens of the folder are those of the policy that it judged
    (tmp_path / "run" / "evaluation.json").unlink()  # rollouts are stored without one
    assert work("generate") == ("12", "0", "4")
    (tmp_path / "trained").mkdir()
    assert work("train", "trained") == work("generate", "trained") == ("-", "-", "-")  # stopped before it wrote anything
    spent = {"sampled_tokens": 1234, "trained_tokens": 56, "judge_calls": 0}
    (tmp_path / "trained" / "evaluation.json").write_text(json.dumps({"spent": spent}))
    assert work("train", "trained") == ("1,234", "56", "0")


def test_a_question_set_leaves_out_its_first_questions(tmp_path):
    rows = [{"question": f"How much is {i} + {i}?", "answer": f"<<{i}+{i}={2 * i}>> #### {2 * i}"} for i in range(1, 7)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    every = make_tasks("gsm8k", split="train", data_dir=str(tmp_path))
    rest = make_tasks("gsm8k", split="train", data_dir=str(tmp_path), skip=2, limit=3)
    assert [t.id for t in rest] == [every[i].id for i in (2, 3, 4)] and rest[0] == every[2] and rest[-1] == every[4]
    assert rest.find(every[1].id) is None and rest.find(every[4].id) == every[4] and rest.find(every[5].id) is None
    assert len(make_tasks("gsm8k", split="train", data_dir=str(tmp_path), skip=9)) == 0
    with pytest.raises(ConfigError, match="skip"):
        make_tasks("gsm8k", split="train", data_dir=str(tmp_path), skip=-1)


def test_the_whole_loop_with_a_tiny_model(tmp_path, monkeypatch):
    """Every stage in this very process: loading torch again for each would take most of a minute."""
    pytest.importorskip("peft", reason="the loop trains LoRA adapters")
    monkeypatch.chdir(tmp_path)

    def rate(judge, steps):  # a random model earns no reward from the rules, and a run without signal fails
        return [Verdict.good() if hash(step.action.token_ids) % 2 else Verdict.bad() for step in steps]

    monkeypatch.setattr(RulesJudge, "judge", rate)
    tokenizer = tiny_lm.tokenizer()
    tiny_lm.llama(len(tokenizer)).save_pretrained("model")
    tokenizer.save_pretrained("model")
    tiny = ["--model", "model", "--out", "run", "--train", "ledger", "--temperatures", "0", "--device", "cpu"]
    tiny += ["--demos", "2", "--warm-episodes", "1", "--rank", "2", "--max-new-tokens", "4", "--base-held-out", "1"]
    tiny += ["--questions", "2", "--updates", "1", "--states-per-update", "4", "--samples-per-state", "2", "--held-out", "2"]
    stages, log = list(plan(parse(tiny))), Log(tmp_path / "stages.jsonl")
    for stage in stages:
        assert cli.main(list(stage.words)) == 0, stage.name
        log.add(stage.name, stage.words, 0, 1.0, 1.0)
    text = report(tmp_path / "run", rows_of(stages, parse(tiny)), log.spent([stage.name for stage in stages]))
    assert "| warm start | ledger | 0 | 2 | 0.0 |" in text and "| swirl on ledger | ledger | 0 | 2 | 0.0 |" in text
    assert "| base | ledger | 0 | 1 | 0.0 |" in text
    spent = json.loads((tmp_path / "run/swirl-ledger/evaluation.json").read_text())["spent"]
    assert spent["updates"] == 1 and spent["questions"] == 2 and spent["sampled_tokens"] > 0


def test_a_failing_stage_ends_the_run_and_the_next_one_goes_on_after_what_is_done(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    nothing = ["--train", "ledger,gsm8k", "--data-dir", "./nowhere", "--demos", "3", "--out", "run"]
    assert main(nothing) == 2
    out, err = capfd.readouterr()
    assert "$ SWIRL_DATA_DIR=./nowhere swirl generate task=ledger" in out and "The same command goes on" in err
    assert "gsm8k, split 'train'" in err and len(Store("run/demos/ledger", "r").keys()) == 3
    assert main(nothing) == 2
    again = capfd.readouterr().out
    assert "generate task=gsm8k" in again and "generate task=ledger" not in again
