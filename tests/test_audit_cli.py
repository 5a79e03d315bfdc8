"""``swirl audit``: what it writes, what it leaves alone, how it goes on, and what it says of a mistake."""

import csv
import json
from pathlib import Path

import msgspec
import pytest
from omegaconf import OmegaConf

from commands import error_of, printed_commands
from stored import episode
from swirl_env.audit import records
from swirl_env.audit.report import Audit
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.registry import make_judge
from swirl_env.stages.audit import load
from swirl_env.store import Store
from swirl_env.types import Answer

pytestmark = pytest.mark.usefixtures("own_cache")
RUN = ("generate", "task=ledger", "agent.noise=0.4", "n=12", "judge=none", "out=run")


@pytest.fixture
def run(swirl):
    """A run in the folder "run"."""
    assert swirl(*RUN)[0] == 0
    return Path("run")


def audit(swirl, *words):
    code, out, err = swirl("audit", "out=run", "resamples=20", *words)
    assert code == 0, err
    return out, load(Path("run"))


def snapshot(path):
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"}


def test_an_audit_prints_and_writes_its_figures_and_leaves_the_run_alone(swirl, run):
    before = snapshot(run)
    out, result = audit(swirl, "signals=[rules,constant,{name:noisy,flip:0.5}]")
    assert "noisy flip=0.5" in out and "written to run/audit/table.json" in out
    assert all(path.read_bytes() == content for path, content in before.items())
    new = {path.relative_to(run).parts[0] for path in snapshot(run).keys() - before.keys()}
    assert new == {"audit", "verdicts"}
    assert [signal.name for signal in result.signals] == ["rules", "constant", "noisy flip=0.5"]
    steps = sum(len(t.steps) for t in Store(run, "r"))
    assert result.steps == steps == sum(result.kinds.values()) and result.episodes == 12
    rules, constant, noisy = (signal.labels["progress"] for signal in result.signals)
    assert constant.accuracy.value == result.truths["progress"].value and constant.kappa.value in (None, 0)
    assert rules.accuracy.value > noisy.accuracy.value
    rows = list(csv.DictReader((run / "audit/table.csv").read_text().splitlines()))
    (row,) = [r for r in rows if (r["signal"], r["against"], r["measure"]) == ("rules", "progress", "accuracy")]
    assert float(row["value"]) == rules.accuracy.value and int(row["n"]) == steps
    by_step = list(csv.DictReader((run / "audit/table.steps.csv").read_text().splitlines()))
    assert len(by_step) == steps and {row["kind"] for row in by_step} == result.kinds.keys()
    good = [float(row["signal:rules"]) > 0 for row in by_step]
    assert sum(g == (row["progress"] == "1") for g, row in zip(good, by_step, strict=True)) == rules.accuracy.value * steps
    for command in printed_commands(out):
        assert command[0] in ("judge", "view")


def test_accuracy_is_what_counting_by_hand_gives(swirl, run):
    _, result = audit(swirl, "signals=[rules,outcome]")
    judge, agree = make_judge("rules"), 0
    for trajectory in Store(run, "r"):
        computed = set()
        for step, verdict in zip(trajectory.steps, judge.judge(list(subtrajectories(trajectory))), strict=True):
            # In Ledger a step is worth taking if its value is one of the plan's and new, or if it is the right answer.
            value = step.result.data.get("value") if step.result else None
            worth = value in {p.result for p in trajectory.task.plan} - computed
            computed.add(value)
            if isinstance(step.call, Answer):
                worth = trajectory.outcome.correct
            agree += worth == (verdict.label == "GOOD")
    assert result.signals[0].labels["progress"].accuracy.value == pytest.approx(agree / result.steps)


class Counting:
    """Calls every step GOOD and counts; the count is what it says that it has spent."""

    asked = 0

    def judge(self, steps):
        Counting.asked += len(steps)
        return make_judge("rules").judge(steps)

    @property
    def spent(self):
        return {"calls": Counting.asked, "tokens": 10 * Counting.asked}


def test_what_is_rated_is_not_rated_again(swirl, run):
    Counting.asked = 0
    words = (f"signals=[{__name__}:Counting]", "samples=2")
    _, some = audit(swirl, *words, "n=5")
    assert Counting.asked == some.steps and some.episodes == 5
    _, every = audit(swirl, *words)
    assert Counting.asked == every.steps and every.episodes == 12
    files = snapshot(run)
    _, again = audit(swirl, *words)
    assert Counting.asked == every.steps and again == every and snapshot(run) == files
    (signal,) = again.signals
    assert (signal.calls, signal.tokens) == (1.0, 10.0)


def test_verdicts_of_the_judge_command_are_used_and_their_cost_is_not_known(swirl, run):
    Counting.asked = 0
    assert swirl("judge", "out=run", f"judge={__name__}:Counting")[0] == 0
    asked = Counting.asked
    _, result = audit(swirl, f"signals=[{__name__}:Counting,constant]")
    assert Counting.asked == asked and result.signals[0].calls is None and result.signals[1].calls == 0
    (flaky,) = audit(swirl, f"signals=[{__name__}:Flaky]")[1].signals
    assert flaky.calls is None and flaky.tokens is None  # it does not count


class Breaking:
    """Raises Ctrl-C after some steps."""

    left = 30

    def judge(self, steps):
        Breaking.left -= len(steps)
        if Breaking.left < 0:
            raise KeyboardInterrupt
        return make_judge("rules").judge(steps)


def test_an_interrupted_audit_goes_on_by_the_command_it_prints(swirl, run):
    Breaking.left = 30
    code, _, err = swirl("audit", "out=run", f"signals=[{__name__}:Breaking]", "resamples=0", "batch=8")
    assert code == 130 and "What was rated is stored" in err
    (command,) = printed_commands(err)
    table = next(iter(Store(run, "r").judges()))
    done = len(Store(run, "r").verdicts(table))
    assert 0 < done < 12
    Breaking.left = 1_000
    assert swirl(*command)[0] == 0
    assert len(Store(run, "r").verdicts(table)) == 12
    steps = sum(len(t.steps) for t in Store(run, "r"))
    assert sum(cost.steps for cost in records.costs(run).read()) == steps


class Flaky:
    """Fails on answers until it is mended."""

    broken = True

    def judge(self, steps):
        if Flaky.broken:
            raise ValueError("out of order")
        return make_judge("rules").judge(steps)


def test_failed_verdicts_are_told_and_asked_for_again(swirl, run):
    Flaky.broken = True
    out, result = audit(swirl, f"signals=[{__name__}:Flaky]")
    (signal,) = result.signals
    assert signal.scored == 0 and signal.failed == result.steps and f"0 ({result.steps} failed)" in out
    assert signal.labels["progress"].accuracy.value is None
    Flaky.broken = False
    _, result = audit(swirl, f"signals=[{__name__}:Flaky]")
    assert result.signals[0].failed == 0 and result.signals[0].labels["progress"].accuracy.value > 0.9


def test_the_policy_is_that_of_the_run_unless_another_is_named(swirl, run):
    out, own = audit(swirl, "signals=[rules]", "samples=4")
    assert "against Q of the policy, 4 fresh episodes per state" in out
    _, expert = audit(swirl, "signals=[rules]", "samples=4", "agent=scripted")
    assert own.policy != expert.policy and len(list((run / "audit").glob("values-*.jsonl"))) == 2
    values = [records.policy_values(run, a.policy).read() for a in (own, expert)]
    shares = [sum(map(sum, (v.wins for v in of))) / sum(map(sum, (v.runs for v in of))) for of in values]
    assert shares[0] < shares[1]  # the run's own errs, the other one does not
    assert "policy" in own.signals[0].labels and "a_policy" in own.signals[0].ranks
    _, without = audit(swirl, "signals=[rules]")
    assert without.policy is None and "policy" not in without.signals[0].labels


def test_a_torn_record_of_values_is_made_again(swirl, run):
    _, whole = audit(swirl, "signals=[constant]", "samples=2")
    (file,) = (run / "audit").glob("values-*.jsonl")
    content = file.read_bytes()
    file.write_bytes(content[:-7])
    assert audit(swirl, "signals=[constant]", "samples=2")[1] == whole
    assert sorted(file.read_bytes().splitlines()) == sorted(content.splitlines())
    file.write_bytes(content.replace(b'"wins"', b'"winz"', 1))
    assert "line 1 is damaged" in error_of(swirl("audit", "out=run", "samples=2"))


def test_audits_by_other_names_stand_next_to_each_other(swirl, run):
    audit(swirl, "signals=[constant]")
    code, out, _ = swirl("audit", "out=run", "signals=[rules]", "name=second", "resamples=0")
    assert code == 0 and "run/audit/second.json" in out
    assert [s.name for s in load(run).signals] == ["constant"] and [s.name for s in load(run, "second").signals] == ["rules"]


def test_some_episodes_are_a_fair_sample_and_not_those_that_ended_first(swirl, run):
    stored = [t.key for t in Store(run, "r")]
    assert stored != sorted(stored)  # short episodes come first
    audit(swirl, "signals=[constant]", "n=4")
    rows = list(csv.DictReader((run / "audit/table.steps.csv").read_text().splitlines()))
    assert list(dict.fromkeys((row["task"], int(row["sample"])) for row in rows)) == sorted(stored)[:4]


# Mistakes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("out=rum",), "rum is no run folder: it does not exist. Did you mean out=run?"),
        (("signals=[ruls]",), "No signal named 'ruls'. Did you mean 'rules'?"),
        (("signals=[]",), "signals"),
        (("signals=rules",), "signals"),
        (("signals=[rules,rules]",), "The signal 'rules' is listed twice"),
        (("signals=[{name:noisy,flip:2}]",), "flip must be a chance between 0 and 1"),
        (("name=../x",), "name"),
        (("samples=-1",), "samples"),
        (("n=0",), "n"),
        (("sample=3",), "sample"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(swirl, run, words, says):
    before = snapshot(Path())
    argv = words if words[0].startswith("out=") else ("out=run", *words)
    assert says in error_of(swirl("audit", *argv))
    assert snapshot(Path()) == before


def test_tasks_without_a_plan_and_runs_without_episodes_are_refused(swirl):
    with Store("own") as store:
        store.append(episode())
    assert "reads gold plans, and task 'q0' has none" in error_of(swirl("audit", "out=own"))
    Path("empty/trajectories").mkdir(parents=True)
    assert "run" in error_of(swirl("audit", "out=empty"))


def test_episodes_of_a_loop_of_ones_own_are_audited_by_the_plan_alone(swirl, run):
    with Store("own") as store:
        for trajectory in Store(run, "r"):
            store.append(trajectory)
    code, _, err = swirl("audit", "out=own", "signals=[rules]", "resamples=0")
    assert code == 0, err
    assert load(Path("own")).truths["progress"] == audit(swirl, "signals=[rules]")[1].truths["progress"]
    for words in (("samples=2",), ("signals=[monte_carlo]",)):
        assert "has no config.yaml, so nobody can tell" in error_of(swirl("audit", "out=own", *words))


@pytest.mark.parametrize("key", ["agent", "task", "grader"])
def test_code_that_only_a_received_folder_names_is_not_run(swirl, run, key):
    config = OmegaConf.load(run / "config.yaml")
    config[key] = {"name": "evil_module:Thing"}
    OmegaConf.save(config, run / "config.yaml")
    assert "names code to run" in error_of(swirl("audit", "out=run", "samples=2", "signals=[constant]"))


def test_the_runs_of_a_sweep_are_audited_one_by_one(swirl):
    assert swirl("generate", "-m", "task=ledger", "agent.noise=0.2,0.6", "n=3", "judge=none", "out=sweep")[0] == 0
    code, out, err = swirl("audit", "out=sweep", "signals=[rules]", "resamples=0")
    assert code == 0, err
    assert len(list(Path("sweep").glob("*/audit/table.json"))) == 2 and out.count("written to") == 2


def test_the_json_is_the_schema_that_it_is_read_with(swirl, run):
    audit(swirl, "signals=[rules]")
    content = json.loads((run / "audit/table.json").read_text())
    assert msgspec.convert(content, Audit) == load(run)
    assert content["signals"][0]["labels"]["progress"]["kappa"].keys() >= {"value", "low", "high", "n", "clusters"}
