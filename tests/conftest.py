"""Fixtures: the shared data, read in place and never copied into the project; the command line in an empty folder."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from swirl_env.cli import let_waiting_threads_sleep, main

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("no clock", deadline=None)  # a busy machine fails no test
settings.load_profile("no clock")
gc.disable()  # while a million objects that stay are made, which would be looked through again and again
let_waiting_threads_sleep()  # before any test loads torch: spinning threads stall those of the test next to them

import forked  # noqa: E402  (its processes have the environment that is there now)


def pytest_collection_finish() -> None:
    """Leaves what was imported and collected out of what is looked through whenever garbage is collected, as training does."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Does the same with what the tests of a file leave: real question sets and loaded models, millions of objects in the end."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def pytest_unconfigure() -> None:
    """Ends the server of forked commands with the tests."""
    forked.stop()


def _shared(path: Path, what: str) -> Path:
    if path.is_dir():
        return path
    reason = f"{what} not found at {path} (set SWIRL_DATA_DIR to the folder that holds hotpotqa/, gsm8k/, ...)"
    if os.environ.get("CI") and os.environ.get("SWIRL_DATA_DIR"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real question sets."""
    return _shared(Path(os.environ.get("SWIRL_DATA_DIR") or ROOT.parent / "shared" / "data").resolve(), "the question sets")


@pytest.fixture(scope="session")
def calculator_dir(data_dir: Path) -> Path:
    """Folder of what models write to a calculator, next to the question sets."""
    return _shared(data_dir.parent / "calculator", "the calculator cases")


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache of indexes for a run of all tests, whichever of its processes they are in, and none of the user's."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE_DIR", str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"))
        yield


@pytest.fixture
def swirl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in an empty folder, without real question sets; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWIRL_DATA_DIR", raising=False)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(list(argv))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
