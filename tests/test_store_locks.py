"""The writer's lock of a run folder: who has it, what releases it, and what does not."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from stored import episode, fill
from swirl_env.errors import StoreLocked
from swirl_env.store import Store

TRY = "import sys; from swirl_env.store import Store; Store(sys.argv[1]).lock()"


def is_locked_for_others(path):
    """Whether another process is refused the lock."""
    done = subprocess.run([sys.executable, "-c", TRY, str(path)], capture_output=True, text=True)
    assert done.returncode == 0 or "StoreLocked" in done.stderr, done.stderr
    return done.returncode != 0


@pytest.mark.parametrize(
    "read",
    [
        lambda path: shutil.copytree(path, path.with_name("copy")),
        lambda path: (path / ".lock").read_bytes(),
        lambda path: shutil.make_archive(str(path.with_name("archive")), "tar", path),
    ],
    ids=["copytree", "read", "tar"],
)
def test_the_lock_survives_copies_of_the_folder(tmp_path, read):
    with Store(fill(tmp_path / "run", 1)) as store:
        store.lock()
        read(tmp_path / "run")
        assert is_locked_for_others(tmp_path / "run")
        with pytest.raises(StoreLocked, match="through another Store"):
            Store(tmp_path / "run").lock()
    assert not is_locked_for_others(tmp_path / "run")


def test_a_copy_has_a_lock_of_its_own(tmp_path):
    with Store(fill(tmp_path / "run", 1)) as store:
        store.lock()
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        with Store(tmp_path / "copy") as copy:
            copy.append(episode("q1"))
        store.append(episode("q2"))
    assert Store(tmp_path / "copy").keys() == {("q0", 0), ("q1", 0)}
    assert Store(tmp_path / "run").keys() == {("q0", 0), ("q2", 0)}


def test_a_lock_file_that_is_replaced_is_locked_again(tmp_path):
    """Whoever gets the lock has it on the file that is there, not on one that was deleted."""
    first = Store(fill(tmp_path, 1))
    first.lock()
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").write_bytes(b"")
    first.close()
    with Store(tmp_path) as second:
        second.lock()
        assert is_locked_for_others(tmp_path)


FORK = """
import os, sys, time
from swirl_env.store import Store
store = Store(sys.argv[1])
store.lock()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""


def test_a_fork_of_a_killed_writer_does_not_keep_the_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", FORK, str(fill(tmp_path, 1))], stdout=subprocess.PIPE, text=True) as writer:
        child = int(writer.stdout.readline())
        try:
            assert is_locked_for_others(tmp_path)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            deadline = time.monotonic() + 30
            while is_locked_for_others(tmp_path) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not is_locked_for_others(tmp_path)
            os.kill(child, 0)  # it lives
        finally:
            os.kill(child, signal.SIGKILL)


EXIT = """
import sys
{torch}
from swirl_env.store import Store
from stored import episode
store = Store(sys.argv[1])
store.append(episode("q0"))
"""


@pytest.mark.parametrize("torch", ["", "import torch"], ids=["alone", "torch"])
def test_a_store_that_is_open_at_exit_closes_silently(tmp_path, torch):
    if torch:
        pytest.importorskip("torch")
    tests = os.path.dirname(__file__)
    code = EXIT.format(torch=torch)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": tests}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Store(tmp_path).keys() == {("q0", 0)}


def test_a_store_that_is_dropped_releases_its_lock(tmp_path):
    store = Store(fill(tmp_path, 1))
    store.lock()
    del store
    assert not is_locked_for_others(tmp_path)
