"""`swirl report`: figures as scipy gives them, files, refusals with the differing keys, sweeps, live runs, judges."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

scipy_stats = pytest.importorskip("scipy.stats")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from reported import SEEDS, sweep, train_run  # noqa: E402
from test_view import make_run  # noqa: E402

from swirl_env.store import Store  # noqa: E402
from swirl_env.types import Verdict  # noqa: E402


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Pictures take seconds; the tests that look at them ask for them."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("swirl_env.view.report.files.pictures", lambda report: [])


@pytest.fixture
def pictures():
    """The report is drawn, too."""


def read(folder="sweep-report"):
    return json.loads((Path(folder) / "report.json").read_text())


def rows(file):
    return list(csv.DictReader(Path(file).read_text().splitlines()))


def cell(report, label, section=0):
    (mine,) = [cell for cell in report["sections"][section]["cells"] if cell["label"] == label]
    return mine


def tree(folder):
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_figures_equal_a_computation_by_hand_on_stored_runs(swirl):
    before = tree(sweep())
    code, out, err = swirl("report", "sweep")
    assert code == 0 and tree("sweep") == before, err
    for algo, values in SEEDS.items():
        success = cell(read(), algo)["figures"]["success"]
        middle = sorted(values)[1:4]
        assert success["mean"] == pytest.approx(np.mean(values)) and success["iqm"] == pytest.approx(np.mean(middle))
        drawn = np.random.default_rng(7).choice(np.array(values), (20_000, 5))
        by_hand = np.percentile(scipy_stats.trim_mean(drawn, 0.25, axis=1), [2.5, 97.5])
        assert success["interval"] == pytest.approx(by_hand, abs=0.012)
        assert f"{100 * success['iqm']:.1f}" in out and f"{100 * min(values):.1f}" in out
    (pair,) = read()["sections"][0]["comparisons"]
    new, old = (np.array(values) for values in SEEDS.values())
    assert (pair["first"], pair["second"], pair["unit"], pair["pairs"]) == ("swirl", "reinforce", "seed", 5) or (
        pair["first"] == "reinforce"
    )
    sign = 1 if pair["first"] == "swirl" else -1
    assert pair["difference"] == pytest.approx(sign * np.mean(new - old)) and pair["better"] == (4 if sign > 0 else 1)
    u = scipy_stats.mannwhitneyu(new, old).statistic / 25
    assert pair["improvement"] == pytest.approx(u if sign > 0 else 1 - u)


def test_csv_holds_every_seed_so_that_all_can_be_computed_again(swirl):
    swirl("report", sweep())
    runs = rows("sweep-report/runs.csv")
    for algo, values in SEEDS.items():
        assert {row["seed"]: float(row["success"]) for row in runs if row["cell"] == algo} == dict(
            zip("01234", values, strict=True)
        )
    (mine,) = [r for r in rows("sweep-report/cells.csv") if (r["cell"], r["figure"]) == ("reinforce", "success")]
    assert float(mine["mean"]) == pytest.approx(np.mean(SEEDS["reinforce"])) and mine["seeds"] == "5"


def test_a_collapsed_seed_is_named_and_in_the_picture(swirl, pictures):
    _, out, _ = swirl("report", sweep())
    assert "collapsed: swirl, seed 3: sampled success fell from 10.0 to 2.0 % (sweep/algo=swirl,seed=3)" in out
    page = Path("sweep-report/report.html").read_text()
    assert "swirl, seed 3: sampled success fell from 10.0" in page and "60.0 %, 2.0 %, 58.0 %" in page  # in words, too


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_seeds_say_so(swirl, count):
    _, out, _ = swirl("report", sweep(seeds={algo: values[:count] for algo, values in SEEDS.items()}))
    words = "1 seed" if count == 1 else "2 seeds"
    assert "fewer than 3 seeds" in out and f"swirl ({words})" in out
    assert cell(read(), "swirl")["figures"]["success"]["interval"] is None
    (pair,) = read()["sections"][0]["comparisons"]
    assert pair["improvement"] is None and pair["interval"] is None and pair["pairs"] == count


def test_learning_curves_are_over_tokens_sampled_and_trained_and_time(swirl, pictures):
    train_run("a", 0.7)
    swirl("report", "a")
    (run,) = read("a-report")["sections"][0]["cells"][0]["runs"]
    points = [tuple(point[key] for key in ("sampled_tokens", "trained_tokens", "seconds", "success")) for point in run["curve"]]
    assert points == [(0, 0, 0, 0.1), (1000, 4000, 2, 0.3), (2000, 8000, 4, 0.5), (3000, 12000, 6, 0.7)]
    for name in ("success-over-sampled-tokens", "success-over-training-tokens", "success-over-seconds", "seeds"):
        assert (Path("a-report") / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"</svg>" in (Path("a-report") / f"{name}.svg").read_bytes()


def test_a_resumed_runs_seconds_go_on(swirl):
    train_run("a", 0.7)
    lines = [(1, 2.0), (2, 4.0), (3, 1.5)]  # resumed after the second update
    Path("a/timing.jsonl").write_text("".join(f'{{"update": {u}, "seconds": {s}}}\n' for u, s in lines))
    swirl("report", "a")
    assert read("a-report")["sections"][0]["cells"][0]["runs"][0]["spent"]["seconds"] == 5.5


@pytest.mark.parametrize(
    ("changes", "named", "fix"),
    [
        ({"trainer": {"lr": 0.01}}, "trainer.lr is 0.001 in a, 0.01 in b", "by=algo,agent,trainer.lr"),
        ({"judge": {"name": "llm"}}, "judge.name is rules in a, llm in b", "by=algo,agent,judge"),
        ({"budget": 9000, "policy": "other"}, "budget is 3000 in a, 9000 in b; policy is", "by=algo,agent,budget,policy"),
    ],
)
def test_a_refused_comparison_names_the_differing_keys_and_a_command_that_works(swirl, tmp_path, changes, named, fix):
    train_run("a", 0.5)
    train_run("b", 0.6, algo={"name": "reinforce"}, **changes)
    code, _, err = swirl("report", "a", "b")
    assert code == 2 and named in err and err.count("\n") == 1 and {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    (command,) = re.findall(r"swirl (report .*)", err)
    assert command == f"report a b {fix}" and swirl(*command.split())[0] == 0


def test_what_changes_nothing_is_not_refused_and_days_are_noted(swirl):
    train_run("a", 0.5)
    train_run("b", 0.6, algo={"name": "rft"}, eval={"every": 7}, model={"date": "2026-11-28"})
    code, out, err = swirl("report", "a", "b")
    assert code == 0 and "model.date differs between runs: 2026-11-27, 2026-11-28" in out, err


def test_many_cells_are_compared_with_the_best_one(swirl):
    for number in range(13):
        train_run(f"sweep/trainer.lr={number}", 0.1 + 0.01 * (7 * number % 13), trainer={"lr": float(number)})
    code, out, err = swirl("report", "sweep")
    pairs = read()["sections"][0]["comparisons"]
    assert code == 0 and "each is compared with the best one" in out, err
    assert len(pairs) == 12 and {pair["first"] for pair in pairs} == {"lr=11.0"} and min(p["difference"] for p in pairs) > 0


def test_one_run_never_counts_twice(swirl):
    train_run("a", 0.5)
    train_run("b", 0.5)
    code, _, err = swirl("report", "a", "b")
    assert code == 2 and "a and b are the same cell with the same seed (0)" in err
    assert swirl("report", "a", "./a", "a/")[0] == 0  # one folder named three times is one run


def test_other_questions_are_sections_of_their_own_with_a_total_over_them(swirl):
    for setting, shift in (("main", 0.0), ("sparse", -0.2)):
        for algo, values in SEEDS.items():
            for seed, value in enumerate(values):
                success = max(0.0, value + shift)
                train_run(f"{setting}/{algo}-{seed}", success, setting=setting, algo={"name": algo}, seed=seed)
    code, out, err = swirl("report", "main", "sparse")
    assert code == 0 and "over all sets of questions" in out, err
    report = read("main-report")
    assert [section["label"] for section in report["sections"]] == ["main", "sparse"]
    (mine,) = [row for row in report["overall"]["training"] if row["label"] == "reinforce"]
    values = np.array(SEEDS["reinforce"])
    assert mine["summary"]["iqm"] == pytest.approx(scipy_stats.trim_mean(np.concatenate([values, values - 0.2]), 0.25))
    low, high = mine["summary"]["interval"]
    assert high - low < 0.05, "the interval draws within each set, not across them"


def test_a_live_run_has_a_dashboard_and_takes_part_in_no_figure(swirl, pictures):
    train_run("live", 0.5, finished=False)
    code, out, err = swirl("report", "live")
    assert code == 0 and "3 updates, 3,000 of 3,000 sampled tokens" in out and "without results yet" in out, err
    assert "swirl report live" in out and read("live-report")["sections"][0]["cells"][0]["figures"].keys() <= {
        "before.success", "before.greedy", "before.process", "before.valid_actions", "before.steps", "before.tokens"
    }  # fmt: skip
    for name in ("loss", "held-out-success", "tokens-per-second", "mean-reward-of-trained-steps"):
        assert (Path("live-report") / f"training-{name}.svg").is_file()


def test_updates_on_what_was_sampled_once_are_all_in_the_dashboard(swirl):
    from swirl_env.view.report.training import panels

    train_run("round", 0.5, finished=False, updates=4)
    rows = [json.loads(line) for line in Path("round/metrics.jsonl").read_text().splitlines()]
    Path("round/metrics.jsonl").write_text("".join(json.dumps({**row, "sampled_tokens": 900}) + "\n" for row in rows))
    (loss,) = [panel for panel in panels(Path("round")) if panel.name == "loss"]
    assert loss.points == ((4000, -0.1), (8000, -0.2), (12000, pytest.approx(-0.3)), (16000, -0.4))


def test_a_line_that_is_being_written_is_left_out(swirl):
    train_run("live", 0.5, finished=False)
    with Path("live/metrics.jsonl").open("a") as file:
        file.write('{"update": 4, "loss"')
    code, out, err = swirl("report", "live")
    assert code == 0 and "3 updates, 3,000 of 3,000 sampled tokens" in out, err


def test_hostile_names_do_nothing_in_the_terminal(swirl):
    train_run("run\x1b[31m", 0.5, algo={"name": "\x1b]0;owned\x07\u202eevil[bold]"})
    code, out, _ = swirl("report", "run\x1b[31m", "out=mine")
    assert code == 0 and "[bold]" in out and not {"\x1b", "\x07", "\u202e"} & set(out)


def test_judges_and_their_agreement(swirl):
    make_run("run", 6)
    with Store("run") as store:
        for number, trajectory in enumerate(list(store)):
            own = [step.verdict for step in trajectory.steps]
            store.append_verdicts("same-1", trajectory.key, own)
            store.append_verdicts("other-1", trajectory.key, [Verdict.bad("", "other")] * len(own) if number < 3 else own)
    stored = list(Store("run", "r"))
    labels = [[step.verdict.label for step in trajectory.steps] for trajectory in stored]
    ours = [label for of_one in labels for label in of_one]
    theirs = [("BAD" if i < 3 else label) for i, of_one in enumerate(labels) for label in of_one]
    code, out, err = swirl("report", "run")
    assert code == 0 and "Agreement of judges" in out, err
    (run,) = read("run-report")["sections"][0]["cells"][0]["runs"]
    assert [judge["judge"] for judge in run["judges"]] == ["other-1", "same-1"]
    (pair,) = run["agreement"]
    equal = np.mean([a == b for a, b in zip(ours, theirs, strict=True)])
    assert pair["steps"] == len(ours) and pair["share"] == pytest.approx(equal)
    chance = sum(np.mean([a == x for a in ours]) * np.mean([b == x for b in theirs]) for x in ("GOOD", "BAD"))
    assert pair["kappa"] == pytest.approx((equal - chance) / (1 - chance))
    code, out, _ = swirl("report", "run", "verdicts=other", "out=other")
    good = read("other")["sections"][0]["cells"][0]["figures"]["process"]["mean"]
    assert code == 0 and good == pytest.approx(np.mean([label == "GOOD" for label in theirs]))


def test_judges_that_give_one_label_have_no_agreement_above_chance(swirl):
    make_run("run", 3)
    with Store("run") as store:
        for trajectory in list(store):
            for judge in ("a-1", "b-1"):
                store.append_verdicts(judge, trajectory.key, [Verdict.good() for _ in trajectory.steps])
    code, _, err = swirl("report", "run")
    pairs = {(p["first"], p["second"]): p for p in read("run-report")["sections"][0]["cells"][0]["runs"][0]["agreement"]}
    assert code == 0 and pairs["a-1", "b-1"]["kappa"] is None and pairs["a-1", "b-1"]["share"] == 1.0, err


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("evaluation.json", "[]"),
        ("evaluation.json", '{"after": {"sampled": 3}}'),
        ("evaluation.json", '{"after"'),
        ("metrics.jsonl", "nonsense\n"),
        ("metrics.jsonl", '{"update": 1}\n'),
        ("metrics.jsonl", '["update"]\n'),
        ("timing.jsonl", '{"update": "x", "seconds": 1}\n'),
        ("config.yaml", "algo: [}\n"),
    ],
)
def test_damaged_files_are_named_in_one_sentence(swirl, file, content):
    train_run("run", 0.5)
    (Path("run") / file).write_text(content)
    code, _, err = swirl("report", "run")
    assert code == 2 and re.search(rf"run/{file}(, line 1)? is damaged", err) and err.count("\n") == 1, err


def test_runs_of_episodes_are_paired_by_question(swirl):
    fakes = ["task=fakes:SumTasks", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge", "n=8", "samples=1"]
    swirl("generate", *fakes, "agent=fakes:EchoAgent", "out=a")
    swirl("generate", *fakes, "agent=random", "out=b")
    code, out, err = swirl("report", "a", "b")
    assert code == 0 and "8 questions" in out, err
    (pair,) = read("a-report")["sections"][0]["comparisons"]
    grades = [{t.task.id: t.outcome.correct for t in Store(path, "r")} for path in ("a", "b")]
    by_hand = [int(bool(grades[0][task])) - int(bool(grades[1][task])) for task in grades[0]]
    assert pair["unit"] == "question" and abs(pair["difference"]) == pytest.approx(abs(np.mean(by_hand)))


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["report"], "Expected a run folder"),
        (["report", "runn"], "runn is no run folder: it does not exist.*Did you mean run"),
        (["report", "run", "by=trainer.lrr"], "No key of these runs named 'trainer.lrr'.*Did you mean 'trainer.lr'"),
        (["report", "run", "out=mine"], "mine already holds files that are no report"),
        (["report", "run", "out=run"], "run already holds files that are no report"),
        (["report", "run", "out=mine/file.txt"], "is a file, not a folder"),
        (["report", "run", "outt=x"], "Did you mean 'out'"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_that_was_measured_is_touched(swirl, tmp_path, argv, sentence):
    train_run("run", 0.5)
    Path("mine").mkdir()
    Path("mine/file.txt").write_text("mine")
    before = tree(tmp_path)
    code, _, err = swirl(*argv)
    assert code == 2 and re.search(sentence, err) and err.count("\n") == 1 and tree(tmp_path) == before, err


def test_a_report_replaces_an_earlier_report(swirl):
    train_run("run", 0.5)
    assert swirl("report", "run", "out=mine")[0] == 0
    first = Path("mine/report.json").read_bytes()
    assert swirl("report", "run", "out=mine")[0] == 0 and Path("mine/report.json").read_bytes() == first
    assert swirl("eval", "out=mine")[0] == 2, "a report is no run folder"


def test_help(swirl):
    code, out, _ = swirl("report", "--help")
    assert code == 0 and out.startswith("usage: swirl report DIR")
