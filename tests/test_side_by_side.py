"""Work in processes of its own: who failed and why, the environment that it sees, and one signal per interrupt."""

import os
import signal
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from swirl_env.benchmarks import side_by_side as module
from swirl_env.benchmarks.side_by_side import Failure, side_by_side


@pytest.fixture(autouse=True)
def light_server(monkeypatch):
    """A server without the heavy imports, for one test."""
    monkeypatch.setattr(module, "PRELOADED", "swirl_env.benchmarks.side_by_side")
    forkserver._forkserver._stop()
    yield
    forkserver._forkserver._stop()


def quietly(ended, working):
    pass


def test_each_failure_says_why_and_nothing_is_printed(capfd, tmp_path):
    errors = {
        "from swirl_env.errors import ConfigError\nraise ConfigError('No \\x1b such kind.')": ("No \\x1b such kind.", 2),
        f"open({str(tmp_path / 'none')!r})": ("", 2),
        "import sys; sys.exit(3)": ("", 3),
        "import os; os.kill(os.getpid(), 9)": ("", -9),
        "raise OSError('x' * 100_000)": ("A file: xxx", 2),
    }
    seen = []
    failed = side_by_side([*errors, "1"], exec, 3, lambda ended, working: seen.append((len(ended), len(working))))
    failed = {one.work: one for one in failed}
    assert failed.keys() == errors.keys() and seen[-1] == (6, 0)
    assert all(failed[code].reason.startswith(text) and failed[code].exitcode == exit for code, (text, exit) in errors.items())
    assert "none: No such file" in failed[f"open({str(tmp_path / 'none')!r})"].reason
    assert len(failed["raise OSError('x' * 100_000)"].reason) <= 2_000
    assert capfd.readouterr().err == ""


def test_a_bug_has_a_sentence_and_its_traceback(capfd):
    (failure,) = side_by_side(["1 / 0"], exec, 1, quietly)
    assert failure.reason == "ZeroDivisionError: division by zero" and "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (Failure("a", "Full.", 2), "Full."),
        (Failure("a", "", 2), "last line"),
        (Failure("a", "", -9), "it was ended by SIGKILL"),
        (Failure("a", "", -15), "it was ended by SIGTERM"),
    ],
)
def test_a_failure_without_a_reason_is_told_by_its_signal_or_its_last_words(failure, why):
    assert failure.why("last line") == why


def test_processes_see_the_environment_of_their_moment(tmp_path, monkeypatch):
    code = "import os, pathlib; pathlib.Path({0!r}).write_text(os.environ.get('SWIRL_CACHE_DIR', 'none') + os.getcwd())"
    for value in ("one", "other", None):
        monkeypatch.setenv("SWIRL_CACHE_DIR", value) if value else monkeypatch.delenv("SWIRL_CACHE_DIR")
        folder = tmp_path / str(value)
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert side_by_side([code.format("said")], exec, 1, quietly) == []
        assert Path("said").read_text() == f"{str(value).lower()}{folder}"


class Ending:
    """A process that ends while it is looked at."""

    def __init__(self, exitcodes, sentinel):
        self._exitcodes, self.sentinel = exitcodes, sentinel

    @property
    def exitcode(self):
        return self._exitcodes.pop(0) if len(self._exitcodes) > 1 else self._exitcodes[0]


@pytest.mark.parametrize("looks", [0, 1, 2, 3])
@pytest.mark.parametrize("code", [0, 1, -9])
def test_a_process_that_ends_between_two_looks_is_counted_once(monkeypatch, looks, code):
    sentinel, end = os.pipe()
    os.close(end)
    reasons, report = module.context().Pipe(duplex=False)
    report.close()
    process = Ending([None] * looks + [code], sentinel)
    monkeypatch.setattr(module, "_start", lambda call, one: module._Process(one, process, reasons))
    ends = []
    failed = side_by_side(["a"], exec, 1, lambda ended, working: ends.append((list(ended), list(working))))
    assert failed == ([Failure("a", "", code)] if code else [])
    assert ends == [([], ["a"])] * looks + [(["a"], [])]
    os.close(sentinel)


def test_an_interrupt_is_heard_once_and_leaves_time_to_clean_up(tmp_path, capfd):
    code = f"""
import os, pathlib, signal, time
folder = pathlib.Path({str(tmp_path)!r})
for number in (signal.SIGINT, signal.SIGHUP):  # of the terminal: this is for the parent to hear
    os.kill(os.getpid(), number)
folder.joinpath("begun").touch()
try:
    time.sleep(60)
finally:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    folder.joinpath("cleaned").touch()
"""

    def watch(ended, working):
        if ended or tmp_path.joinpath("begun").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side([code], exec, 1, watch)
    assert tmp_path.joinpath("cleaned").exists() and capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_server_is_deaf_while_it_imports(number, capfd):
    module.context()
    module._start_server()
    server = forkserver._forkserver._forkserver_pid
    os.kill(server, number)
    time.sleep(0.05)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert side_by_side(["1"], exec, 1, quietly) == []
    assert forkserver._forkserver._forkserver_pid == server and capfd.readouterr().err == ""


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="1 or more, got 0"):
        side_by_side(["1"], exec, 0, quietly)
