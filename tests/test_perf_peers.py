"""The comparison with other packages: environments by pip, drivers in processes, blocks in turns, reasons in rows."""

import io
import itertools
import json
import sys

import pytest
from rich.console import Console

from swirl_env.benchmarks.perf import __main__ as perf
from swirl_env.benchmarks.perf.peers import compare, venvs
from swirl_env.benchmarks.perf.peers.compare import Measurement, Side
from swirl_env.benchmarks.perf.peers.drivers.search import swirl as search_swirl
from swirl_env.benchmarks.perf.peers.drivers.step import swirl as step_swirl
from swirl_env.benchmarks.perf.peers.process import DriverError, running
from swirl_env.benchmarks.perf.peers.venvs import Peer
from swirl_env.benchmarks.perf.timing import Report, row, show

FAKE = """
def build(options, look_up):
    if options.get("refuses"):
        raise ValueError(options["refuses"])
    def step(n):
        with open(options["log"], "a") as log:
            log.write(options["name"] + "\\n")
        print("chatter")
        if options.get("fails"):
            raise RuntimeError("out of luck\\nand more")
        if options.get("dies"):
            raise SystemExit(3)
        return [options["time"]] * n
    return {"step": step}
"""
STEP = Measurement("step", "a step", 3, rounds=2, unit="s", by_cpu=True)


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Drivers whose times are known; returns how to compare one with ours, and the log of who was measured."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(compare, "python_of", lambda peer: (sys.executable, ""))
    log = tmp_path / "log"
    mine = {"name": "ours", "time": 2_000_000_000, "log": str(log)}

    def run(**options):
        sides = [Side("gem", "fake", "as it is", {"name": "theirs", "time": 6_000_000_000, **options})]
        return compare._compare(sides, "fake", mine, [STEP])

    return run, lambda: log.read_text().split()


def test_blocks_are_measured_in_turns_and_the_first_of_each_is_left_out(fakes):
    run, log = fakes
    (found,), own = run()
    assert log() == ["ours", "theirs"] * 3
    assert (found.theirs, found.ours, found.ratio, found.peer) == (6.0, 2.0, 3.0, "GEM 0.1.0")
    assert compare._times(own["step"]) == [2_000_000_000] * 6 and found.cpu_ratio > 0 and "GB" in found.note


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"refuses": "no such model"}, "ValueError: no such model"),
        ({"fails": True}, "RuntimeError: out of luck"),
        ({"dies": True}, "ended with exit code 3"),
    ],
)
def test_a_peer_that_cannot_be_driven_has_a_row_that_says_why_and_ours_is_measured_alone(fakes, options, reason):
    run, _ = fakes
    (found,), own = run(**options)
    assert reason in found.note and found.theirs is found.ours is found.ratio is None
    assert compare._times(own["step"])[-6:] == [2_000_000_000] * 6


def test_a_driver_that_does_not_exist_is_an_error_in_one_line():
    with (
        pytest.raises(DriverError, match=r"ModuleNotFoundError: No module named 'step\.nobody'"),
        running(sys.executable, "step.nobody", {}),
    ):
        pass


def test_what_pip_cannot_install_says_so_in_pips_words_and_leaves_no_environment_behind(tmp_path):
    python, why = venvs.python_of(Peer("nobody", ("nobody @ file:///nowhere/nobody-1.0-py3-none-any.whl",)), tmp_path)
    assert python == "" and "nobody-1.0-py3-none-any.whl" in why and "\n" not in why
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir()] == []


def test_a_peer_that_needs_torch_gets_that_of_the_running_environment_or_is_told(tmp_path, monkeypatch):
    peer = Peer("learner", ("learner==1.0",), needs_torch=True)
    monkeypatch.setattr(venvs.importlib.util, "find_spec", lambda name: None)
    assert venvs.python_of(peer, tmp_path) == (
        "",
        "it needs torch, which the running environment lacks: pip install 'swirl-env[train]'",
    )
    monkeypatch.setattr(venvs.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert venvs._pins(peer) == ["torch==2.13.0+cpu"] and venvs._pins(Peer("other", ("other",))) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ERROR: first\nERROR: No matching distribution for x\nWARNING: old pip\n", "No matching distribution for x"),
        ("Traceback:\n  boom\n", "boom"),
        ("", "pip failed and said nothing"),
    ],
)
def test_the_reason_is_the_last_error_that_pip_names(text, line):
    assert venvs.last_error(text) == line


def test_rows_without_a_figure_are_shown_with_their_reason(fakes):
    run, _ = fakes
    (good,), _ = run()
    (bad,), _ = run(refuses="no such model")
    console = Console(width=160, file=io.StringIO())
    show(Report("peers", "x", (row("y", [1.0]),), comparisons=(good, bad)), console)
    shown = console.file.getvalue()
    assert "3 x" in shown and "no such model" in shown and " - " in shown and "GEM 0.1.0" in shown


def test_our_own_sides_measure_what_they_are_asked_for(tmp_path):
    steps = step_swirl.build({"turns": 2, "slots": 3, "judge": "rules"}, str.upper)
    assert [len(steps[name](2)) for name in ("step", "vector")] == [4, 4]
    rows = [{"id": str(i), "title": f"river {i}", "text": "a bank and water"} for i in range(30)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "q.json").write_text(json.dumps(["river 7", "bank"]))
    options = {"passages": str(tmp_path / "p.jsonl"), "queries": str(tmp_path / "q.json"), "top_k": 2, "slots": 4}
    searches = search_swirl.build(options, str.upper)
    assert [len(searches[name](2)) for name in ("build", "query", "batch")] == [2, 2, 2]
    assert all(time > 0 for time in itertools.chain(searches["query"](3), steps["step"](1)))


@pytest.mark.slow
def test_our_own_update_is_measured_too(tmp_path):
    import tiny_lm
    from swirl_env.benchmarks.perf.peers.drivers.grpo import swirl as grpo_swirl

    tiny_lm.llama(len(tiny_lm.tokenizer())).save_pretrained(tmp_path)
    tiny_lm.tokenizer().save_pretrained(tmp_path)
    options = {"turns": 2, "questions": 2, "samples": 2, "tokens": 3, "rank": 2, "rows": 2, "model": str(tmp_path)}
    options |= {"prompts": ["What is 1 + 1?", "What is 2 + 2?"], "reply": "Write a call."}
    (taken,) = grpo_swirl.build(options, str.upper)["update"](1)
    assert taken > 0


@pytest.mark.parametrize("words", [["store", "--grpo"], ["search", "--grpo"], ["peers", "--passages", "0"]])
def test_an_option_of_the_comparison_is_refused_elsewhere_and_a_size_out_of_range_everywhere(words, capsys):
    with pytest.raises(SystemExit):
        perf.main(words)
    assert ("option of peers" in (said := capsys.readouterr().err)) != ("at least 1" in said)


def test_all_runs_every_benchmark_but_the_one_that_installs_packages(tmp_path, monkeypatch):
    ran = []

    class Done:
        returncode = 0

    monkeypatch.setattr("subprocess.run", lambda command, check: ran.append(command[3]) or Done())
    assert perf.main(["all", "--json", str(tmp_path)]) == 0
    assert set(ran) == perf.BENCHMARKS.keys() - {"peers"}
