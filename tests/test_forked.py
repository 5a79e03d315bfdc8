"""Forked commands are what new interpreters are: arguments, folder, environment, signals, exit codes, nothing left open."""

import json
import os
import signal
import subprocess
import sys

import pytest

import forked
from commands import finish, started

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forks")

TELL = """
import json, os, signal, sys, threading
handlers = {name: str(signal.getsignal(getattr(signal, name))) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGCHLD")}
state = {"argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "name": __name__, "handlers": handlers}
state |= {"environ": dict(os.environ), "threads": threading.active_count(), "group": os.getpgid(0)}
state |= {"files": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]}
state |= {"streams": [[s.encoding, s.errors, s.isatty(), s.line_buffering] for s in (sys.stdin, sys.stdout, sys.stderr)]}
print(json.dumps(state), flush=True)
print("an error", file=sys.stderr)
"""


@pytest.mark.parametrize("way", ["-c", "-m", "file"])
def test_a_fork_sees_what_a_new_interpreter_sees(tmp_path, way):
    (tmp_path / "tell.py").write_text(TELL)
    words = {"-c": ["-c", TELL], "-m": ["-m", "tell"], "file": ["tell.py"]}[way] + ["a b", "--c=d"]
    env = {**os.environ, "SWIRL_OF_THIS_TEST": "ü", "PYTHONPATH": str(tmp_path / "plugins")}
    fork = forked.start(words, cwd=tmp_path, env=env)
    assert isinstance(fork, forked.Process)
    out, err = fork.communicate(timeout=60)
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60, "preexec_fn": forked.listen}
    new = subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, **options)
    assert fork.returncode == new.returncode == 0 and err == new.stderr == "an error\n"
    assert json.loads(out) == json.loads(new.stdout)


@pytest.mark.parametrize("code", ["import sys; sys.exit(7)", "1 / 0", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_exit_codes_are_those_of_a_new_interpreter(code):
    fork = forked.run(["-c", code], timeout=60)
    assert fork.returncode == subprocess.run([sys.executable, "-c", code], capture_output=True).returncode != 0
    assert ("ZeroDivisionError" in fork.stderr) == (code == "1 / 0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_the_fork_alone(number):
    forks = [forked.start(["-c", "import sys, time; print(1, flush=True); time.sleep(60)"]) for _ in range(2)]
    assert [fork.stdout.readline() for fork in forks] == [b"1\n"] * 2
    forks[0].send_signal(number)
    code, _, err = finish(forks[0])
    # What packages do at exit may turn the end by an uncaught Ctrl-C into exit code 1, in a new interpreter as well.
    assert "KeyboardInterrupt" in err if number == signal.SIGINT else code == -number
    assert code != 0 and forks[1].poll() is None
    forks[1].kill()
    assert finish(forks[1]) == (-signal.SIGKILL, "", "")


def test_what_a_plugin_registers_for_the_end_is_done():
    code = "import atexit, threading, time; atexit.register(print, 'at exit')\n"
    code += "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()"
    assert forked.run(["-c", code], timeout=60).stdout.split("\n") == ["thread", "at exit", ""]


def test_what_packages_read_while_they_are_imported_gets_a_new_interpreter(tmp_path):
    process = started(tmp_path, "--version", env={**os.environ, "OMP_NUM_THREADS": "3"})
    assert isinstance(process, subprocess.Popen)
    assert finish(process)[0] == 0


def test_what_packages_set_by_themselves_is_no_reason_for_a_new_interpreter(monkeypatch):
    for name in forked.SET_BY_PACKAGES:
        monkeypatch.setenv(name, "True")
    code = f"import os; print([os.environ[name] for name in {forked.SET_BY_PACKAGES}])"
    process = forked.start(["-c", code])
    assert isinstance(process, forked.Process)
    assert finish(process)[1] == f"{['True'] * len(forked.SET_BY_PACKAGES)}\n"


def test_forks_draw_different_random_numbers():
    code = "import random, numpy; print(random.random(), numpy.random.random())"
    draws = {number for _ in range(2) for number in forked.run(["-c", code], timeout=60).stdout.split()}
    assert len(draws) == 4


def test_no_fork_is_a_descendant_of_the_process_that_asked_for_it():
    """Tests that look for what a process has left running would find the commands of the tests next to it."""
    code = "import os; print(*[line for line in open(f'/proc/{os.getppid()}/status') if line.startswith('PPid')])"
    parent = forked.run(["-c", code], timeout=60).stdout
    assert parent.startswith("PPid") and int(parent.split()[1]) != os.getpid()
