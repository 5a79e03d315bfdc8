"""The study of the embedded policy: a fair plan, figures that are the runs' own, and a page whose words stay."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the plan names settings of the embedded policy")
pytest.importorskip("matplotlib", reason="the curves need matplotlib")

from swirl_env.algos.embedded import get_setting
from swirl_env.algos.warm_start import WarmStart, cached_folder
from swirl_env.benchmarks.study import __main__ as study
from swirl_env.benchmarks.study import arms as study_plan
from swirl_env.benchmarks.study import page as study_page
from swirl_env.benchmarks.study.conditions import Condition
from swirl_env.errors import SwirlError
from swirl_env.registry import load, names
from swirl_env.view.report.training import mean_curve


def planned(out, arms=("reinforce", "swirl_logged"), settings=("main",), **more):
    return study_plan.Study(Path(out), (0, 1), settings, (100, 200, 400), 20, tuple(arms), **more)


def first_trials():
    return {one.name: one.rates()[0] for one in study_plan.CANDIDATES}


def test_every_arm_has_trials_of_its_own_and_none_on_test_seeds():
    whole = planned("o", [one.name for one in study_plan.CANDIDATES])
    assert {one.algo["name"] for one in study_plan.CANDIDATES} <= set(names("algo"))
    for one in whole.candidates:
        trials = [*one.rates(), *one.variations(1e-3)]
        assert len({json.dumps(t) for t in trials}) == len(trials) == len(one.variants) + 1 + 2 * one.guarded
        searched = [whole.trial(one, t) for t in trials]
        assert len({arm.folder for arm in searched}) == len(trials)
        assert all(
            "eval.split=validation" in arm.overrides and arm.budget == 400
            for arm in searched
            if "budget=null" not in arm.overrides
        )
    assert study_plan.SEARCHED[1] not in study._parser().get_default("seeds")
    runs = [*whole.main("main", first_trials()), *whole.conditions(first_trials())]
    assert len({arm.folder for arm in runs}) == len(runs) and not any("eval.split" in o for arm in runs for o in arm.overrides)


def test_other_settings_are_for_the_core_arms_alone():
    whole = planned("o", first_trials())
    main, sparse = ([arm.name for arm in whole.main(name, first_trials())] for name in ("main", "sparse"))
    assert set(main) == set(whole.names) and set(sparse) == set(study_plan.CORE) < set(main)


def test_only_arms_with_demonstrations_read_them():
    whole = planned("o", first_trials())
    for one, arm in zip(whole.candidates * 2, whole.main("main", first_trials()), strict=True):
        assert any(o.startswith("stored=") for o in arm.overrides) == (one.uses == "demonstrations")


def test_all_options_of_all_arms_are_options_of_their_algorithms():
    whole = planned("o", first_trials())
    for one in whole.candidates:
        kind = load("algo", one.algo["name"])
        for trial in [*one.rates(), *one.variations(1e-3)]:
            options = {**study_plan.of_algo({k: v for k, v in one.algo.items() if k != "name"}), **trial}
            kind(**{key.removeprefix("algo."): value for key, value in options.items() if key.startswith("algo.")})


def test_a_larger_policy_begins_in_a_folder_and_takes_larger_batches(monkeypatch):
    monkeypatch.setattr(study_plan, "cached_folder", lambda setting, seed, start: f"w/{setting.name}-{seed}-{start.width}")
    large = study_plan.Policy(WarmStart(width=160), {"slots": 256}, batch=4)
    plan = planned("o", ["reinforce", "rft"], policy=large)
    first, second = list(plan.main("main", {"reinforce": {"algo.episodes_per_update": 8}, "rft": {}}))[:2]
    assert {"policy=w/main-0-160", "slots=256", "algo.episodes_per_update=32"} <= set(first.overrides)
    assert {"algo.episodes_per_update=64", "algo.questions=1024"} <= set(second.overrides)  # 4 times the defaults


def test_the_plan_names_warm_starts_and_trains_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))
    plan = planned(tmp_path / "o", ["reinforce"], policy=study_plan.Policy(WarmStart(width=160)))
    trained = []
    monkeypatch.setattr(study, "train_warm_starts", lambda starts, workers, config: trained.extend(starts))
    study._prepare(plan, ["search", "main"], 1, 1e-3)
    assert not (tmp_path / "cache").exists() and trained == [("main", 0), ("main", 1), ("main", 5)]
    (named,) = {o for arm in plan.main("main", first_trials()) if arm.seed == 1 for o in arm.overrides if "policy=" in o}
    assert named == f"policy={cached_folder(get_setting('main'), 1, WarmStart(width=160))}" and "main-1-" in named


def raising(error):
    def prepare(*_):
        raise error

    return prepare


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SwirlError("2 of 3 runs failed. a: \x1b."), 2, "study: 2 of 3 runs failed. a: \\x1b.\n"),
        (PermissionError(13, "Permission denied", "o"), 2, "study: o: Permission denied. "),
        (KeyboardInterrupt(), 130, "\nThe study goes on where it was"),
    ],
)
def test_an_error_of_the_study_is_one_line(tmp_path, monkeypatch, capsys, error, code, said):
    monkeypatch.setattr(study, "_prepare", raising(error))
    assert study.main(["--out", str(tmp_path)]) == code
    err = capsys.readouterr().err
    assert err.startswith(said) and len(err.strip().splitlines()) == 1


def test_demonstrations_that_fail_end_the_study_with_their_command(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "train_warm_starts", lambda *_: None)
    monkeypatch.setattr(study, "demonstrate", lambda *_: [["no such stage"]])
    with pytest.raises(SwirlError, match="swirl 'no such stage' ended with exit code 2"):
        study._prepare(planned(tmp_path, ["swirl_demo"]), ["main"], 1, 1e-3)


@pytest.mark.parametrize("workers", [0, -1])
def test_a_study_without_workers_is_refused(workers, capsys):
    with pytest.raises(SystemExit, match="2"):
        study.main([f"--workers={workers}"])
    assert f"--workers is 1 or more, got {workers}" in capsys.readouterr().err


@pytest.mark.parametrize(("false_good", "false_bad"), [(0.1, 0.1), (0.5, 0.1), (0.0, 0.0), (0.62, 0.05)])
def test_a_condition_has_the_errors_that_it_names(false_good, false_bad):
    flip, lenient = Condition("x", "", false_good, false_bad).rates()
    # The noisy judge swaps a label, then forgives a BAD that was not swapped.
    assert flip * (1 - lenient) == pytest.approx(false_bad, abs=1e-5)
    assert flip + (1 - flip) * lenient == pytest.approx(false_good, abs=1e-5)
    with pytest.raises(ValueError, match="false_bad <= false_good"):
        Condition("x", "", 0.1, 0.2).rates()


def write(arm, before, after, marks=(), tokens=400):
    def found(value):
        return {"accuracy": {"value": value}, "process": {"value": value / 2}}

    held = {"before": None if before is None else {"sampled": found(before), "greedy": found(before)}}
    held["at"] = {str(m): {"sampled": found(v), "spent": {"sampled_tokens": m}} for m, v in marks}
    held |= {"after": {"sampled": found(after), "greedy": found(after)}}
    held["spent"] = {"sampled_tokens": tokens, "trained_tokens": 3, "judge_calls": 2}
    arm.folder.mkdir(parents=True)
    (arm.folder / "evaluation.json").write_text(json.dumps(held))


def filled(tmp_path):
    plan = planned(tmp_path / "runs")
    for one in plan.candidates:
        better = 1e-3 if one.name == "reinforce" else 3e-4
        for trial in one.rates():
            write(plan.trial(one, trial), None, 0.2 if trial["trainer.lr"] == better else 0.1)
        for i, trial in enumerate(one.variations(better)):
            write(plan.trial(one, trial), None, 0.15 + 0.1 * i if one.name == "reinforce" else 0.05)
    best = study.chosen(plan, 1e-3)
    for arm in plan.main("main", best):
        if arm.name == "reinforce":
            write(arm, 0.0, 0.4, [(100, 0.1), (200, 0.2)])
        else:
            write(arm, None, 0.9 + 0.02 * arm.seed, [(100, 0.2), (200, 0.6 + 0.1 * arm.seed)])
    return plan, best


def test_the_search_takes_the_best_trial(tmp_path):
    plan, best = filled(tmp_path)
    # the better rate, then one thing at a time: other batches, an entropy bonus, and last a KL, which was the best
    assert best["reinforce"] == {"trainer.lr": 1e-3, "algo.episodes_per_update": 16, "trainer.kl": 0.01}
    assert best["swirl_logged"] == plan.candidates[1].rates()[0]
    report = json.loads((plan.out / "chosen.json").read_text())
    assert report["reinforce"]["trials"][3]["success"] == pytest.approx([0.25, 0.25])
    assert study.chosen(planned(tmp_path / "other"), 3e-3)["reinforce"]["trainer.lr"] == 3e-3  # nothing was searched there


def test_the_page_holds_the_figures_and_keeps_its_words(tmp_path):
    plan, best = filled(tmp_path)
    page = tmp_path / "page.md"
    study_page.write(page, plan, best, ["search", "main"])
    text = page.read_text().replace("# ", "")
    page.write_text("# Words\n" + text + "More words.\n")
    study_page.write(page, plan, best, ["search", "main"])
    again = page.read_text()
    assert again.startswith("# Words\n") and again.endswith("More words.\n") and again.count("<!-- main: begin -->") == 1
    table = again.partition("main: begin")[2].partition("main: end")[0]
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in table.splitlines() if "|" in line}
    # Two seeds: Student's t with 1 degree of freedom is 12.706; half width = t * (difference / 2).
    assert rows["`reinforce`"][:6] == ["outcome", "10.0 ± 0.0", "20.0 ± 0.0", "40.0 ± 0.0", "40.0 ± 0.0", "20.0 ± 0.0"]
    against = again.partition("main-reinforce: begin")[2]
    line = next(one for one in against.splitlines() if one.startswith("| `swirl_logged`"))
    cells = [c.strip() for c in line.split("|")[2:-1]]
    # At half the tokens .60 and .70 against .40 and .40; .40 is met between 100 (.20) and 200 (.65): 100 + 100 * .20 / .45.
    assert cells == ["25.0 ± 63.5", "51.0 ± 12.7", "51.0 ± 12.7", "144"]
    assert rows["warm start"][1] == "0.0 ± 0.0" and (tmp_path / "page-main.png").read_bytes().startswith(b"\x89PNG")
    searched = next(line for line in again.splitlines() if line.startswith("| `reinforce`"))
    assert "10.0 / 20.0 / 15.0 / 25.0 / 35.0 / 45.0" in searched


def test_mean_curves_are_interpolated_over_what_all_cover():
    x, y = mean_curve([[(0, 0.0), (10, 1.0)], [(5, 0.0), (20, 0.3)]])
    assert x.tolist() == [5, 10] and y == pytest.approx([0.25, (1.0 + 0.1) / 2])
