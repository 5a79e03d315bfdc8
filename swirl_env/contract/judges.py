"""The contract of judges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import msgspec

from swirl_env.contract.rules import Broken, Unchecked, alike, attempt, count, expect, quiet, shown, storable
from swirl_env.contract.samples import steps
from swirl_env.episodes.guarded import run_judge
from swirl_env.types import Label, SubTrajectory, Verdict, VerdictStatus

_FAIL = "what cannot be judged is Verdict.failed('why')"
_STATUSES, _LABELS = get_args(VerdictStatus), get_args(Label)


def has_judge(judge: Unchecked) -> None:
    """Has the method `judge`."""
    expect(callable(getattr(judge, "judge", None)), f"expected a method `judge`, got none; add it to {type(judge).__name__}.")


def one_verdict_per_step(judge: Unchecked) -> None:
    """Gives one verdict per step, and none for an empty batch."""
    count(attempt(judge.judge, [], given="an empty batch", fix="return []"), 0, "verdicts for an empty batch", "judge")
    inputs = steps()
    verdicts = attempt(judge.judge, inputs, given=f"{len(inputs)} steps", fix=_FAIL)
    count(verdicts, len(inputs), f"verdicts for {len(inputs)} steps", "judge")


def survives_every_step(judge: Unchecked) -> None:
    """Judges calls, answers, malformed actions and tool errors without raising, gold or no gold."""
    for step in steps():
        verdict = _one(judge, step)
        kind = type(verdict).__name__
        expect(isinstance(verdict, Verdict), f"expected a Verdict for {_named(step)}, got {kind}; use Verdict.good(...).")


def statuses_are_consistent(judge: Unchecked) -> None:
    """Scored verdicts, and only they, have a reward, and it is a finite number."""
    for step in steps():
        verdict, place = _one(judge, step), _named(step)
        status = verdict.status
        expect(status in _STATUSES, f"expected a status of {', '.join(_STATUSES)} for {place}, got {shown(status)}.")
        if status == "scored":
            got = shown(verdict.reward)
            expect(_finite(verdict.reward), f"expected a finite reward for {place}, got {got}; what has none is unscored.")
        else:
            got = f"reward {verdict.reward}, label {verdict.label}"
            none = verdict.reward is None and verdict.label is None
            expect(none, f"expected no reward and no label with status {status} for {place}, got {got}; it is never a zero.")
        known = verdict.label is None or verdict.label in _LABELS
        expect(known, f"expected the label of {place} to be None, GOOD or BAD, got {shown(verdict.label)}.")
        parts = all(isinstance(k, str) and _finite(v) for k, v in verdict.parts.items())
        expect(parts, f"expected finite numbers as parts of the reward of {place}, got {shown(verdict.parts)}.")
        explained = status != "failed" or bool(verdict.critique)
        expect(explained, f"expected a failed verdict on {place} to say why, got an empty critique; {_FAIL}.")


def verdicts_can_be_stored(judge: Unchecked) -> None:
    """Verdicts can be written as JSON and read back."""
    for step in steps():
        verdict = _one(judge, step)
        why = storable(verdict)
        expect(why is None, f"expected JSON values for {_named(step)}, but {why}; convert them.")


def a_batch_equals_singles(judge: Unchecked) -> None:
    """A batch of n gives what n batches of one give, in the same order, every time."""
    inputs = steps()
    batch = judge.judge(inputs)
    _same(inputs, batch, [_one(judge, step) for step in inputs], "single calls")
    _same(inputs, batch, judge.judge(inputs[::-1])[::-1], "the batch in reverse")


def one_bad_step_spoils_no_other(judge: Unchecked) -> None:
    """If a batch raises because of one step, the engine gives the others the verdicts that they get alone."""
    inputs = steps()
    bad = inputs[1]

    class Raising:
        def judge(self, steps: Sequence[SubTrajectory]) -> Unchecked:
            if bad in steps:
                raise RuntimeError("one bad step")
            return judge.judge(steps)

    with quiet():
        verdicts = run_judge(Raising(), inputs)
    for step, verdict in zip(inputs, verdicts, strict=True):
        if step == bad:
            expect(verdict.status == "failed", f"expected a failed verdict on the bad step, got {verdict.status}.")
        else:
            _same([step], run_judge(judge, [step]), [verdict], "a batch with a step that raises")


def leaves_its_input_alone(judge: Unchecked) -> None:
    """Changes nothing in the steps that it judges, the task's meta and the result's data included."""
    inputs = steps()
    before = msgspec.json.encode(inputs)
    judge.judge(inputs)
    same = msgspec.json.encode(inputs) == before
    expect(same, "expected the steps unchanged after judge, got others; copy meta, data or the list before changing it.")


def built_twice_it_judges_the_same(judge: Unchecked, twin: Unchecked) -> None:
    """A second judge with the same options gives the same verdicts."""
    inputs = steps()
    _same(inputs, judge.judge(inputs), twin.judge(inputs), "a second judge of the same options")


def _same(inputs: Sequence[SubTrajectory], these: Unchecked, those: Unchecked, who: str) -> None:
    for step, a, b in zip(inputs, these, those, strict=True):
        if not alike((a.status, a.label, a.reward), (b.status, b.label, b.reward)):
            raise Broken(
                f"expected {who} to give {a.status} {a.reward} on {_named(step)}, got {b.status} {b.reward}; "
                f"a verdict may depend on its step alone."
            )


def _one(judge: Unchecked, step: SubTrajectory) -> Unchecked:
    verdicts = attempt(judge.judge, [step], given=f"the step {_named(step)}", fix=_FAIL)
    count(verdicts, 1, f"verdict on the step {_named(step)}", "judge")
    return verdicts[0]


def _named(step: SubTrajectory) -> str:
    return repr(shown(step.action.text))


def _finite(value: Unchecked) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


RULES = (
    has_judge,
    survives_every_step,
    one_verdict_per_step,
    statuses_are_consistent,
    verdicts_can_be_stored,
    a_batch_equals_singles,
    one_bad_step_spoils_no_other,
    leaves_its_input_alone,
)
GATES = (has_judge, survives_every_step)
TWIN_RULES = (built_twice_it_judges_the_same,)
