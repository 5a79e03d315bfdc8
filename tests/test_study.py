"""The study of the embedded policy: a fair plan, figures that are the runs' own, and a page whose words stay."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the plan names settings of the embedded policy")
pytest.importorskip("matplotlib", reason="the curves need matplotlib")

from swirl_env.benchmarks.study import __main__ as study
from swirl_env.benchmarks.study import arms as study_plan
from swirl_env.benchmarks.study import page as study_page
from swirl_env.registry import names
from swirl_env.view.report.training import mean_curve


def planned(out, arms=("swirl_logged", "reinforce"), settings=("main",)):
    return study_plan.Study(Path(out), (0, 1), settings, (100, 200, 400), 20, tuple(arms))


def test_every_arm_has_as_many_trials_and_none_on_test_seeds():
    whole = planned("o", [one.name for one in study_plan.CANDIDATES])
    assert {len(one.trials()) for one in study_plan.CANDIDATES} == {6}
    assert all(len({json.dumps(t) for t in one.trials()}) == 6 for one in study_plan.CANDIDATES)
    assert {one.algo["name"] for one in study_plan.CANDIDATES} <= set(names("algo"))
    searched = [arm for one in whole.candidates for runs in whole.search(one) for arm in runs]
    assert len(searched) == 6 * 2 * len(study_plan.CANDIDATES) == len({arm.folder for arm in searched})
    assert all("eval.split=validation" in arm.overrides for arm in searched)
    tested = study._parser().get_default("seeds")
    assert not {seed for _, seed in study_plan.SEARCHED} & set(tested)
    chosen = {one.name: one.trials()[0] for one in study_plan.CANDIDATES}
    runs = [*whole.main("main", chosen), *whole.noise(chosen), *whole.filters(chosen)]
    assert len({arm.folder for arm in runs}) == len(runs) and not any("eval.split" in o for arm in runs for o in arm.overrides)


def test_only_arms_with_demonstrations_read_them():
    chosen = {one.name: one.trials()[0] for one in study_plan.CANDIDATES}
    whole = planned("o", chosen)
    for one, arm in zip(whole.candidates * 2, whole.main("main", chosen), strict=True):
        assert any(o.startswith("stored=") for o in arm.overrides) == (one.uses == "demonstrations")


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
        for i, runs in enumerate(plan.search(one)):
            for arm in runs:
                write(arm, None, 0.1 * i if one.name == "reinforce" else 0.5 - 0.1 * i)
    best = study.chosen(plan)
    for arm in plan.main("main", best):
        if arm.name == "reinforce":
            write(arm, None, 0.4, [(100, 0.1), (200, 0.2)])
        else:
            write(arm, 0.0, 0.9 + 0.02 * arm.seed, [(100, 0.2), (200, 0.6 + 0.1 * arm.seed)])
    return plan, best


def test_the_search_takes_the_best_trial(tmp_path):
    plan, best = filled(tmp_path)
    assert best["reinforce"] == {"trainer.lr": 1e-3, "algo.episodes_per_update": 32}  # the last of six
    assert best["swirl_logged"] == plan.candidates[0].trials()[0]
    report = json.loads((plan.out / "chosen.json").read_text())
    assert report["reinforce"]["trials"][2]["success"] == pytest.approx([0.2, 0.2])


def test_the_page_holds_the_figures_and_keeps_its_words(tmp_path):
    plan, best = filled(tmp_path)
    page = tmp_path / "page.md"
    study_page.write(page, plan, best, ["search", "main"])
    text = page.read_text().replace("# ", "")
    page.write_text("# Words\n" + text + "More words.\n")
    study_page.write(page, plan, best, ["search", "main"])
    again = page.read_text()
    assert again.startswith("# Words\n") and again.endswith("More words.\n") and again.count("<!-- main: begin -->") == 1
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in again.splitlines() if "|" in line}
    # Two seeds: Student's t with 1 degree of freedom is 12.706; half width = t * (difference / 2).
    assert rows["`reinforce` (outcome only)"][:5] == ["10.0 ± 0.0", "20.0 ± 0.0", "40.0 ± 0.0", "40.0 ± 0.0", "20.0 ± 0.0"]
    against = again.partition("main-against: begin")[2]
    line = next(one for one in against.splitlines() if one.startswith("| `swirl_logged`"))
    cells = [c.strip() for c in line.split("|")[2:-1]]
    # At half the tokens .60 and .70 against .40 and .40; .40 is met between 100 (.20) and 200 (.65): 100 + 100 * .20 / .45.
    assert cells == ["25.0 ± 63.5", "51.0 ± 12.7", "2.3", "144"]
    assert rows["warm start"][0] == "0.0 ± 0.0" and (tmp_path / "page-main.png").read_bytes().startswith(b"\x89PNG")


def test_mean_curves_are_interpolated_over_what_all_cover():
    x, y = mean_curve([[(0, 0.0), (10, 1.0)], [(5, 0.0), (20, 0.3)]])
    assert x.tolist() == [5, 10] and y == pytest.approx([0.25, (1.0 + 0.1) / 2])
