"""What a comparison of training runs does around them: warm starts, folders, errors, and places of figures in pages."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="training needs torch")

from swirl_env.benchmarks import compare, places, warm_starts
from swirl_env.benchmarks.side_by_side import Failure
from swirl_env.errors import SwirlError


def arm(folder, seed=0, done=False):
    run = compare.Arm("rft", seed, Path(folder) / f"train-rft-{seed}", (), 100)
    if done:
        run.folder.mkdir(parents=True)
        (run.folder / "evaluation.json").write_text(json.dumps({"before": {}, "after": {}}))
    return run


@pytest.mark.parametrize(("done", "left"), [([], [0, 1, 2]), ([1], [0, 2]), ([0, 1, 2], [])])
def test_warm_starts_are_those_of_runs_that_are_left(tmp_path, monkeypatch, done, left):
    trained = []
    monkeypatch.setattr(warm_starts, "train_warm_starts", lambda starts, workers: trained.extend(starts))
    runs = [arm(tmp_path, seed, seed in done) for seed in range(3)]
    twice = [replace(run, name="other") for run in runs]
    compare.warm_starts(SimpleNamespace(policy="embedded", setting="easy", workers=2), [*runs, *twice])
    assert trained == [("easy", seed) for seed in left]


@pytest.mark.parametrize("out", ["file/b", "file"])
def test_a_folder_that_cannot_be_made_ends_it_before_the_first_process(tmp_path, monkeypatch, out):
    monkeypatch.setattr(compare, "side_by_side", None)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        compare.train([arm(tmp_path / out)], 1)


@pytest.mark.parametrize(
    ("log", "failure", "why"),
    [
        (None, ("", -9), "train-rft-0: it was ended by SIGKILL"),
        (None, ("", 1), "train-rft-0: it said nothing"),
        (None, ("b.log: Permission denied.", 2), "train-rft-0: b.log: Permission denied."),
        ("", ("", 1), "train-rft-0: it said nothing (all of it: {log})"),
        ("noise\nswirl: No such kind.\n\n", ("", 2), "train-rft-0: No such kind. (all of it: {log})"),
        ("step 3\n", ("", -9), "train-rft-0: it was ended by SIGKILL (all of it: {log})"),
        ("Traceback\n", ("KeyError: 1", 1), "train-rft-0: KeyError: 1 (all of it: {log})"),
    ],
)
def test_a_failed_run_is_told_with_or_without_its_log(tmp_path, monkeypatch, log, failure, why):
    run = arm(tmp_path)
    if log is not None:
        run.log.write_text(log)
    monkeypatch.setattr(compare, "side_by_side", lambda left, *_: [Failure(left[0], *failure)])
    with pytest.raises(SwirlError) as error:
        compare.train([run], 1)
    assert str(error.value) == f"1 of 1 training runs failed. {why.format(log=run.log)}"


@pytest.mark.parametrize("end", ["", "\n", "\nWords.", "\n\nWords.\n"])
def test_figures_are_replaced_in_their_place_alone(end):
    page = "# Page\n" + places.place("a", "old").rstrip("\n") + end
    assert places.has_place(page, "a") and not places.has_place(page, "b")
    new = places.replaced(page, "a", "new")
    assert new == "# Page\n" + places.place("a", "new") + end.removeprefix("\n")
    assert places.replaced(new, "a", "new") == new


@pytest.mark.parametrize("rest", [" ", " Words", "x\n"])
def test_a_comment_within_a_line_ends_no_place(rest):
    page = places.place("a", "old").rstrip("\n") + rest
    assert not places.has_place(page, "a")
    with pytest.raises(LookupError, match="has no lines"):
        places.replaced(page, "a", "new")
