"""Why a training run learns nothing: every loop of a run has a bound other than progress, and says what was wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from swirl_env.errors import TrainingError
from swirl_env.protocols import Judge
from swirl_env.types import Action, Step

MOST_UNUSABLE = 3
"""Updates in a row in which no step has a usable reward; then the run stops: what fails on every item will go on failing."""
_FLAT = "all advantages were 0, as rewards or outcomes were all alike"
_NOT_FINITE = "loss or gradient was not finite"
_UNUSABLE = "no step had a usable reward or outcome"
_CUT_OFF = "trainer.overlong=mask left every action out, as model.max_new_tokens had cut all of them off"


class Idleness:
    """What went by without training the policy.

    Args:
        judge: of the run; None for none.
    """

    def __init__(self, judge: Judge | None) -> None:
        self._judge = judge
        self._in_a_row = 0
        self._reasons: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._critique = ""

    def read(self, steps: Sequence[Step]) -> None:
        """Counts verdicts, and remembers why one failed."""
        self._verdicts.update(step.verdict.status for step in steps)
        self._critique = next((s.verdict.critique for s in steps if s.verdict.status == "failed"), self._critique)

    def note(self, *, stepped: bool, skipped: bool, usable: bool, cut_off: bool = False) -> None:
        """Notes what became of an update.

        Args:
            stepped: whether it changed the policy.
            skipped: whether its loss or gradient was not finite.
            usable: whether any step had a usable reward.
            cut_off: whether all that had one were left out because the limit on new tokens had cut them off.

        Raises:
            TrainingError: if no step had one, `MOST_UNUSABLE` times in a row.
        """
        if stepped:
            self._in_a_row = 0
            return
        reason = _CUT_OFF if cut_off else _NOT_FINITE if skipped else _FLAT if usable else _UNUSABLE
        self._reasons[reason] += 1
        self._in_a_row = self._in_a_row + 1 if reason in (_UNUSABLE, _CUT_OFF) else 0
        if self._in_a_row >= MOST_UNUSABLE:
            raise TrainingError(
                f"Stopped after {self._in_a_row} updates in a row without anything to train on: {reason}{self._judged()}. "
                f"When that is fixed, the run goes on from its last checkpoint with resume=true."
            )

    def error(self, ended: str, cost: str) -> TrainingError:
        """Returns the error of a run that has trained on nothing.

        Args:
            ended: why the algorithm ended; empty if it reached its limit.
            cost: what the run has cost.
        """
        counts = self._reasons.most_common(3)
        reasons = "; ".join(f"in {count} update{'' if count == 1 else 's'} {reason}" for reason, count in counts)
        advice = (
            "Check the rewards for huge values, or lower trainer.lr."
            if set(self._reasons) == {_NOT_FINITE} and not ended
            else "A policy that earns no reward yet needs demonstrations first (algo=rft algo.states=stored), or an easier task."
        )
        return TrainingError(
            f"Nothing was trained on: {ended or reasons or 'no update was made'} ({cost}{self._judged()}). {advice}"
        )

    def _judged(self) -> str:
        """Returns what became of the verdicts, as the end of a sentence."""
        if self._judge is None:
            return "; the run has no judge (judge=...)"
        counts = ", ".join(f"{count:,} {status}" for status, count in self._verdicts.most_common())
        return f"; verdicts: {counts or 'none'}" + (f", the last failed one: {self._critique:.200}" if self._critique else "")


def check_acted(actions: Sequence[Action], update: int, *, too_long: int = 0) -> None:
    """Refuses to go on if the policy sampled nothing in any state: it would not in the next ones either.

    Args:
        actions: what it did.
        update: number of the update that they are for.
        too_long: the policy's context in tokens if states were too long for it; else 0.

    Raises:
        TrainingError: with the reason.
    """
    if any(action.token_ids for action in actions):
        return
    reason = f"every prompt fills its context of {too_long} tokens (model.max_context)" if too_long else "it sampled no token"
    raise TrainingError(f"The policy could not act in any state of update {update}: {reason}.")
