"""What is built once: by one thread or process at a time, whole or not at all."""

import threading
from pathlib import Path

import pytest

from swirl_env.cache import build_cached


def test_a_folder_is_built_once_by_all_who_ask_at_the_same_time(tmp_path: Path) -> None:
    built: list[str] = []
    ready = threading.Barrier(8)

    def build(folder: Path) -> None:
        built.append(folder.name)
        (folder / "file").write_text("whole")

    def ask() -> None:
        ready.wait()
        assert (build_cached(tmp_path / "deep" / "target", build) / "file").read_text() == "whole"

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_a_build_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_cached(tmp_path / "target", broken)
    assert not (tmp_path / "target").exists() and not list(tmp_path.glob(".building-*"))
    assert list(build_cached(tmp_path / "target", lambda folder: (folder / "all").touch()).iterdir())
