"""How episodes go while they are run: accuracy, share of GOOD steps, tokens per second, failures, as a note in a progress bar."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from swirl_env.types import Trajectory


class Live:
    """Counts episodes as they end.

    Args:
        recent: how many of the latest episodes accuracy and GOOD share are taken over; None for all.
        clock: gives seconds.
    """

    def __init__(self, recent: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._graded: deque[bool] = deque(maxlen=recent)
        self._labels: deque[tuple[int, int]] = deque(maxlen=recent)
        self._clock, self._begun = clock, clock()
        self.tokens = self.failed = self.unjudged = 0

    def add(self, trajectory: Trajectory) -> None:
        """Counts an episode that has just ended."""
        self.tokens += sum(len(step.action.token_ids) for step in trajectory.steps)
        if trajectory.ended == "error":
            self.failed += 1
            return
        labels = [step.verdict.label for step in trajectory.steps if step.verdict.label is not None]
        self._labels.append((labels.count("GOOD"), len(labels)))
        self.unjudged += sum(step.verdict.status == "failed" for step in trajectory.steps)
        if trajectory.outcome.correct is not None:
            self._graded.append(trajectory.outcome.correct)

    def __str__(self) -> str:
        good, labelled = (sum(column) for column in zip(*self._labels, strict=True)) if self._labels else (0, 0)
        seconds = self._clock() - self._begun
        notes = [
            f"accuracy {sum(self._graded) / len(self._graded):.3f}" if self._graded else "",
            f"GOOD {100 * good / labelled:.0f} %" if labelled else "",
            f"{self.tokens / seconds:,.0f} tokens/s" if self.tokens and seconds > 0 else "",
            f"{self.failed:,} failed" if self.failed else "",
            f"{self.unjudged:,} steps without a verdict" if self.unjudged else "",
        ]
        return "  ".join(filter(None, notes))
