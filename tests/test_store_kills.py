"""One writer and many readers of a run folder; kills, interrupts and full disks lose nothing that was acknowledged."""

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from stored import episode, fill, shard
from swirl_env.errors import ConfigError, DuplicateKey, StoreError, StoreLocked
from swirl_env.store import Store
from swirl_env.store.codec import encode_trajectory
from swirl_env.store.lines import Appender, read_lines
from swirl_env.store.verdicts import VerdictTable
from swirl_env.types import Verdict

# One writer, many readers


def test_one_writer_at_a_time(tmp_path):
    code = "import sys; from swirl_env.store import Store; s = Store(sys.argv[1]); s.lock(); print('ok', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(fill(tmp_path, 1))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "ok\n"
        with pytest.raises(StoreLocked, match="Another process is writing"):
            Store(tmp_path).append(episode("q1"))
        assert len(Store(tmp_path, mode="r")) == len(Store(tmp_path)) == 1
        assert [t.task.id for t in Store(tmp_path).select("process")] == ["q0"]
        other.communicate("\n")
    Store(tmp_path).append(episode("q1"))


def test_one_writer_within_a_process(tmp_path):
    first = Store(tmp_path)
    first.append(episode("q0"))
    with pytest.raises(StoreLocked, match="This process"):
        Store(tmp_path).append(episode("q1"))
    first.append(episode("q1"))
    del first  # a store that nobody holds any more holds no lock
    Store(tmp_path).append(episode("q2"))
    assert len(Store(tmp_path)) == 3


def _append_in_child(store, queue):
    try:
        store.append(episode("child"))
    except StoreError as error:
        queue.put(str(error))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_write(tmp_path):
    store = Store(tmp_path)
    store.append(episode("q0"))
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=_append_in_child, args=(store, queue))
    child.start()
    assert "forked" in queue.get(timeout=30)
    child.join()
    store.append(episode("q1"))
    with pytest.raises(StoreLocked):
        Store(tmp_path).lock()
    assert len(store) == 2


def test_a_reader_keeps_to_what_there_was(tmp_path):
    store = Store(fill(tmp_path, 2))
    reading = iter(Store(tmp_path, mode="r"))
    assert next(reading).task.id == "q0"
    store.append(episode("q2"))
    assert [t.task.id for t in reading] == ["q1"]
    assert len(Store(tmp_path, mode="r")) == 3


def test_reading_only(tmp_path):
    with pytest.raises(StoreError, match="no run folder"):
        Store(tmp_path / "absent", mode="r")
    with pytest.raises(ConfigError, match="mode"):
        Store(tmp_path, mode="w")
    store = Store(fill(tmp_path, 1), mode="r")
    for write in (store.append, lambda t: store.write_config("x: 1"), lambda t: store.save(store.filter("none"))):
        with pytest.raises(StoreError, match="reading only"):
            write(episode("q1"))
    assert len(list(store.select("none"))) == 1 and not list((tmp_path / "selections").iterdir())
    assert len(Store(tmp_path / "absent")) == 0 and not (tmp_path / "absent").exists()


# Kills and full disks

APPEND = """
import sys
from msgspec.structs import replace
from swirl_env.store.codec import decode_trajectory
from swirl_env.store import Store
one = decode_trajectory(sys.stdin.buffer.read())
with Store(sys.argv[1], shard_bytes=200_000) as store:
    done = store.keys()
    for i in range(int(sys.argv[2])):
        if (f"q{i}", 0) not in done:
            store.append(replace(one, task=replace(one.task, id=f"q{i}")))
            print(i, flush=True)
"""


def start_appending(folder, count, limit=None):
    """Starts a process that stores episodes q0, q1, ... and prints the number of each that was acknowledged."""

    def bound():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", APPEND, str(folder), str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, preexec_fn=bound if limit else None)
    process.stdin.write(encode_trajectory(episode()))
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_random_moments_nothing_acknowledged_is_lost(tmp_path, blow):
    kills = int(os.environ.get("SWIRL_TEST_KILLS", "3"))
    run, count, rng = tmp_path / "run", 2_000 * kills, random.Random(int(blow))
    for _ in range(kills):
        before = len(Store(run))
        with start_appending(run, count) as process:
            output = process.stdout.readline()
            time.sleep(rng.random() * 0.05)
            process.send_signal(blow)
            output += process.stdout.read()
        told = {(f"q{line}", 0) for line in output.decode().split("\n")[:-1]}
        keys = Store(run, mode="r").keys()
        assert told <= keys
        assert len(keys) - before <= len(told) + 1, "more than the episode in flight was stored without a word"
        assert [t.task.id for t in Store(run)] == [f"q{i}" for i in range(len(keys))]
    process = start_appending(run, count)
    process.communicate()
    assert process.returncode == 0
    joined = b"".join(file.read_bytes() for file in sorted((run / "trajectories").iterdir()))
    tasks = [msgspec.structs.replace(episode().task, id=f"q{i}") for i in range(count)]
    assert joined == b"".join(encode_trajectory(msgspec.structs.replace(episode(), task=task)) for task in tasks)


def test_a_full_disk_takes_back_what_does_not_fit(tmp_path):
    run = tmp_path / "run"
    size = len(encode_trajectory(episode("q0")))
    process = start_appending(run, 100, limit=int(size * 7.5))  # file size limit: write() writes a part, then fails
    output, errors = process.communicate()
    assert process.returncode == 1 and b"StoreError" in errors and b"not stored" in errors and b"resume" in errors
    told = len(output.split())
    assert told == 7
    assert shard(run).read_bytes().endswith(b"}\n")
    assert [t.task.id for t in Store(run)] == [f"q{i}" for i in range(told)]
    process = start_appending(run, 20)
    process.communicate()
    assert process.returncode == 0 and len(Store(run)) == 20


def test_a_write_that_fails_leaves_the_store_usable(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append(episode("q0"))
    real, calls = os.write, []

    def half(fd, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(fd, bytes(data[: len(data) // 2]))

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StoreError, match="No space left on device"):
        store.append(episode("q1"))
    monkeypatch.setattr(os, "write", real)
    assert [t.task.id for t in store] == ["q0"]
    store.append(episode("q1"))
    assert [t.task.id for t in store] == ["q0", "q1"]


def test_an_interrupt_between_file_and_index_is_no_duplicate(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append(episode("q0"))
    real = os.write

    def interrupted(fd, data):
        real(fd, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.append(episode("q1"))
    monkeypatch.setattr(os, "write", real)
    store.append(episode("q1"))
    assert [t.task.id for t in store] == ["q0", "q1"]


def test_an_interrupt_while_judging_is_no_duplicate(tmp_path, monkeypatch):
    store = Store(fill(tmp_path, 2))
    store.append_verdicts("j", ("q0", 0), [Verdict.good(), Verdict.good()])

    def interrupted(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(VerdictTable, "_index", interrupted)
        store.append_verdicts("j", ("q1", 0), [Verdict.good(), Verdict.good()])
    with pytest.raises(DuplicateKey):
        store.append_verdicts("j", ("q1", 0), [Verdict.good(), Verdict.good()])
    assert set(Store(tmp_path, mode="r").verdicts("j")) == {("q0", 0), ("q1", 0)}


def test_a_tail_that_could_not_be_removed_is_removed_before_the_next_record(tmp_path, monkeypatch):
    file = Appender(tmp_path / "lines.jsonl")
    file.append(b'{"step":1}\n')
    real = os.write

    def half(fd, data):
        if len(data) < 5:
            raise OSError(28, "No space left on device")
        return real(fd, bytes(data[:-3]))

    def refuse(fd, size):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", half)
        broken.setattr(os, "ftruncate", refuse)
        with pytest.raises(StoreError, match="No space left"):
            file.append(b'{"step":2}\n')
    assert not file.path.read_bytes().endswith(b"\n")
    file.append(b'{"step":3}\n')
    file.close()
    assert [line for _, _, line in read_lines(file.path)] == [b'{"step":1}\n', b'{"step":3}\n']
