"""Progress of long work: a bar with rate and time left in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hydra.core.hydra_config import HydraConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from swirl_env.config.orphans import is_worker

_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


class Advance(Protocol):
    """Takes note of finished work."""

    def __call__(self, count: int = 1, note: str = "") -> None:
        """Adds `count` to what is done; `note` says how it goes."""


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Shows how far work has come, on standard error.

    Args:
        what: what is being done.
        total: how much there is to do.
        done: how much was done before.
    """
    console = Console(stderr=True)
    if is_worker():  # several bars would write over one another
        yield _lines(
            f"{Path(HydraConfig.get().runtime.output_dir).name}: {what}" if HydraConfig.initialized() else what, total, done
        )
    elif console.is_terminal:
        with _bar(what, total, done, console) as advance:
            yield advance
    else:
        yield _lines(what, total, done)


@contextmanager
def _bar(what: str, total: int, done: int, console: Console) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done, rate="", note="")
        begun = time.monotonic()
        new = 0

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal new
            new += count
            rate = new / max(time.monotonic() - begun, 1e-9)
            bar.update(task, advance=count, note=note, rate=_rate(rate))

        yield advance


def _lines(what: str, total: int, done: int) -> Advance:
    begun = last = time.monotonic()
    first = done

    def advance(count: int = 1, note: str = "") -> None:
        nonlocal last, done
        done += count
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            rate = (done - first) / (now - begun)
            left = (total - done) / rate if rate else 0
            print(f"{what}: {done}/{total}, {_rate(rate)}, {left:.0f} s left  {note}".rstrip(), file=sys.stderr, flush=True)

    return advance


def _rate(rate: float) -> str:
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
