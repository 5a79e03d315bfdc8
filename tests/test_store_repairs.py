"""What is wrong with a run folder is said once, with a command that works: damaged lines, copies, verdicts without an episode."""

import json
import os
import re
import shutil
import subprocess

import pytest

from stored import episode, fill, shard
from swirl_env.errors import DuplicateKey, StoreError
from swirl_env.evaluate import evaluate
from swirl_env.store import Store
from swirl_env.types import Verdict

GOOD = (Verdict.good(), Verdict.good())


def judged(path, n):
    """A run folder of n episodes, all of them judged by "j"."""
    with Store(fill(path, n)) as store:
        for i in range(n):
            store.append_verdicts("j", (f"q{i}", 0), GOOD)
    return path


def follow(message):
    """Runs the command that an error prints."""
    command = re.search(r"(sed -i\.bak .*?)\.?$", str(message))[1]
    subprocess.run(["sh", "-c", command], check=True)


# Damaged lines

DAMAGE = [b"\0" * 40, b"not json", b'{"v":1,"key":["q9",0],"task":{}}', b"[" * 1_000 + b"]" * 1_000, b"\xff\xfe", b""]
DAMAGE += [b'{"v":1,"key":["q9",0],"task":' + b'{"a":' * 1_000 + b"1" + b"}" * 1_001]


@pytest.mark.parametrize("use", [lambda s: s.keys(), list, lambda s: s.filter("process"), lambda s: s.append(episode("q9"))])
@pytest.mark.parametrize("where", [(1,), (0, 2, 4), (1, 2, 3, 4)], ids=str)
def test_the_advice_works_once_for_all_damaged_lines(tmp_path, where, use):
    file = shard(fill(tmp_path, 5))
    lines = file.read_bytes().splitlines()
    for i, at in enumerate(where):
        lines[at] = DAMAGE[i % len(DAMAGE)]
    file.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(StoreError, match=f"line {where[0] + 1} is damaged") as caught:
        use(Store(tmp_path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900
    follow(caught.value)
    assert [t.task.id for t in Store(tmp_path)] == [f"q{i}" for i in range(5) if i not in where]
    use(Store(tmp_path))


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_every_kind_of_damage_is_named(tmp_path, damage):
    file = shard(judged(tmp_path, 3))
    table = tmp_path / "verdicts" / "j.jsonl"
    for path, read in ((file, list), (table, lambda store: dict(store.verdicts("j")))):
        whole = path.read_bytes()
        lines = whole.splitlines()
        path.write_bytes(b"\n".join([lines[0], damage, lines[2]]) + b"\n")
        with pytest.raises(StoreError, match=rf"{path.name}, line 2 is damaged") as caught:
            read(Store(tmp_path))
        follow(caught.value)
        read(Store(tmp_path))
        path.write_bytes(whole)


def test_a_damaged_file_with_blanks_in_its_path_is_quoted(tmp_path):
    file = shard(fill(tmp_path / "a run; touch x", 2))
    file.write_bytes(b"damage\n" + file.read_bytes())
    with pytest.raises(StoreError) as caught:
        Store(file.parent.parent).keys()
    follow(caught.value)
    assert len(Store(file.parent.parent).keys()) == 2 and not os.path.exists("x")


def test_episodes_that_were_deleted_are_run_and_judged_again(tmp_path):
    """After "delete that line" verdicts are left without their episode; they must not stop the resumed run."""
    file = shard(judged(tmp_path, 4))
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[2:]))
    with Store(tmp_path) as store:
        for i in range(2):
            store.append(episode(f"q{i}"))
            assert (f"q{i}", 0) not in store.verdicts("j"), "verdicts on the old episode say nothing of the new one"
            store.append_verdicts("j", (f"q{i}", 0), [Verdict.bad(), Verdict.bad()])
    store = Store(tmp_path, "r")
    assert store.verdicts("j").judged() == store.keys() and store.verdicts("j")["q0", 0][0].label == "BAD"
    assert store.filter("process", "j").size == 2


def test_verdicts_of_an_episode_that_is_gone_are_not_given_to_another(tmp_path):
    file = shard(judged(tmp_path, 2))
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[1])
    with Store(tmp_path) as store:
        store.append(episode("q0", labels=("GOOD",) * 5))  # of another length
    (other,) = [t for t in Store(tmp_path).with_verdicts("j") if t.task.id == "q0"]
    assert [step.verdict.status for step in other.steps] == ["unscored"] * 5
    assert evaluate(Store(tmp_path).with_verdicts("j")).episodes == 2


# Verdicts taken back


def test_verdicts_can_be_taken_back_and_given_again(tmp_path):
    with Store(judged(tmp_path, 3)) as store:
        before = (tmp_path / "verdicts" / "j.jsonl").read_bytes()
        assert store.withdraw_verdicts("j", [("q0", 0), ("q2", 0), ("q7", 0)]) == 2
        assert store.verdicts("j").judged() == {("q1", 0)} and len(store.verdicts("j")) == 1
        assert store.withdraw_verdicts("j", [("q0", 0)]) == 0
        store.append_verdicts("j", ("q0", 0), [Verdict.bad(), Verdict.bad()])
    table = Store(tmp_path, "r").verdicts("j")
    assert set(table) == {("q0", 0), ("q1", 0)} and table["q0", 0][0].label == "BAD"
    assert (tmp_path / "verdicts" / "j.jsonl").read_bytes().startswith(before), "nothing is rewritten"


# Copies and duplicates


def use_all(path):
    """What every way of reading counts."""
    store = Store(path, "r")
    table = store.verdicts("j")
    return len(store), len(list(store)), len(store.keys()), store.filter("process", "j").total, len(table)


@pytest.mark.parametrize("copies", [(0,), (0, 1, 2), (2, 2, 2)], ids=str)
def test_copied_lines_count_once_with_a_warning(tmp_path, copies, caplog):
    judged(tmp_path, 3)
    for file in (shard(tmp_path), tmp_path / "verdicts" / "j.jsonl"):
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines + [lines[i] for i in copies]))
    assert use_all(tmp_path) == (3, 3, 3, 3, 3)
    assert evaluate(Store(tmp_path)).episodes == 3
    assert {record.levelname for record in caplog.records} == {"WARNING"} and "line 4" in caplog.text
    assert len(caplog.records) == 2, "one warning per file"
    with Store(tmp_path) as store:
        store.append(episode("q3"))
    assert len(Store(tmp_path)) == 4


def test_a_file_that_was_copied_next_to_itself_counts_once(tmp_path):
    judged(tmp_path, 3)
    shutil.copy(shard(tmp_path), tmp_path / "trajectories" / "00001.jsonl")
    assert use_all(tmp_path) == (3, 3, 3, 3, 3)


@pytest.mark.parametrize("use", [list, len, Store.keys, lambda s: s.filter("none"), lambda s: s.append(episode("q9"))])
def test_two_different_records_of_one_episode_are_refused_with_both_places(tmp_path, use):
    file = shard(fill(tmp_path, 2))
    other = shard(fill(tmp_path / "other", 1))
    changed = json.loads(other.read_text())
    changed["agent"] = "another"
    file.write_bytes(file.read_bytes() + json.dumps(changed, separators=(",", ":")).encode() + b"\n")
    with pytest.raises(DuplicateKey, match=r"line 3 holds task 'q0', sample 0 a second time, and not as line 1 does") as caught:
        use(Store(tmp_path))
    follow(caught.value)
    use(Store(tmp_path))


def test_two_different_verdicts_on_one_episode_are_refused(tmp_path):
    table = judged(tmp_path, 2) / "verdicts" / "j.jsonl"
    table.write_bytes(table.read_bytes() + table.read_bytes().splitlines(keepends=True)[0].replace(b"GOOD", b"BAD"))
    with pytest.raises(DuplicateKey, match="line 3") as caught:
        Store(tmp_path).verdicts("j")
    follow(caught.value)
    assert len(Store(tmp_path).verdicts("j")) == 2


# Episodes of an own loop


def test_episodes_of_an_own_loop_are_numbered(tmp_path):
    with Store(tmp_path) as store:
        keys = [store.append(episode(task)) for task in ("a", "b", "a", "a", "b")]
    assert keys == [("a", 0), ("b", 0), ("a", 1), ("a", 2), ("b", 1)]
    with Store(tmp_path) as store:
        assert store.append(episode("a")) == ("a", 3)
        assert store.append(episode("a", 7)) == ("a", 7) and store.append(episode("a")) == ("a", 8)
    assert sorted(t.key for t in Store(tmp_path)) == [*(("a", i) for i in (0, 1, 2, 3, 7, 8)), ("b", 0), ("b", 1)]


@pytest.mark.parametrize("sample", [0, 3])
def test_explicit_keys_stay_unique(tmp_path, sample):
    with Store(tmp_path) as store:
        assert store.append(episode("a"), sample) == ("a", sample)
        with pytest.raises(DuplicateKey, match=f"sample {sample}"):
            store.append(episode("a"), sample)
        with pytest.raises(DuplicateKey, match="sample 5"):
            store.append(episode("a", 5))
            store.append(episode("a", 5))


def test_a_failed_episode_of_an_own_loop_is_replaced_not_numbered(tmp_path):
    with Store(tmp_path) as store:
        assert store.append(episode("a", ended="error")) == store.append(episode("a")) == ("a", 0)
    assert len(Store(tmp_path)) == 1


# Folders that cannot be read


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("name", ["trajectories", "verdicts", "trajectories/00000.jsonl", "verdicts/j.jsonl"])
def test_what_may_not_be_read_is_no_empty_run(tmp_path, monkeypatch, name):
    judged(tmp_path / "run", 2)
    monkeypatch.chdir(tmp_path)
    os.chmod(".", 0o755)
    os.chmod(tmp_path / "run" / name, 0)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match="Permission denied"):
            store = Store("run", "r")
            print(len(store), store.judges(), len(store.verdicts("j")))
    finally:
        os.seteuid(0)


# What is no ordinary file


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda file: os.mkfifo(file), "cannot be read: It is no ordinary file"),
        (lambda file: file.mkdir(), ": Is a directory"),
        (lambda file: file.symlink_to("/dev/zero"), "It is no ordinary file|is a link, and is not"),
        (lambda file: file.symlink_to("nowhere"), "is a link to a file that is not there|is a link, and is not"),
    ],
    ids=["pipe", "folder", "device", "nowhere"],
)
@pytest.mark.parametrize("read", [list, lambda s: s.append(episode("q9"))], ids=["read", "write"])
def test_what_is_no_ordinary_file_is_named_and_never_waited_for(tmp_path, make, says, read):
    file = shard(fill(tmp_path, 2))
    file.unlink()
    make(file)
    with pytest.raises(StoreError, match=says), Store(tmp_path) as store:
        read(store)
    assert not (file.parent / "nowhere").exists()


def test_nothing_is_written_through_a_link(tmp_path):
    """A run folder that somebody sent may hold a link to a file of this user's: its end is no torn record of ours."""
    mine = tmp_path / "mine.txt"
    file = shard(fill(tmp_path / "run", 2))
    for text in ("a secret without a line's end", file.read_text() + "my own last words"):
        mine.write_text(text)
        file.unlink()
        file.symlink_to(mine)
        with pytest.raises(StoreError, match="is a link, and is not written through"), Store(tmp_path / "run") as store:
            store.append(episode("q9"))
        assert mine.read_text() == text
    table = tmp_path / "run" / "verdicts" / "j.jsonl"
    table.parent.mkdir(exist_ok=True)
    table.symlink_to(mine)
    assert len(Store(tmp_path / "run", "r")) == 2  # reading is no harm
    with pytest.raises(StoreError), Store(tmp_path / "run") as store:
        store.append_verdicts("j", ("q0", 0), GOOD)
    assert mine.read_text() == text
