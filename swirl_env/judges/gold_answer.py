"""How probable the gold answer is in a state: what IGPO, TRACE and the `information_gain` judge measure progress by."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from swirl_env.episodes.transcript import next_state, observe
from swirl_env.judges.next_token import logprobs_singly, logprobs_together
from swirl_env.judges.prefix_tree import Ids
from swirl_env.kv_cache import attends_to_all
from swirl_env.protocols import ActionFormat
from swirl_env.sequences import common_prefix
from swirl_env.types import State, Step, SubTrajectory

log = logging.getLogger(__name__)

_TOLERANCE, _LOOSE = 1e-4, 0.05
"""How far probabilities read together may be from those read singly, in float32 and in the shorter types."""
_CHECKED = 4
"""How many prompts are compared."""


class TextRenderer(Protocol):
    """What is used of the renderer of the `transformers` agent."""

    def ids(self, state: State) -> Ids:
        """Returns the ids of a state."""
        ...

    def text_ids(self, text: str) -> Ids:
        """Returns the ids of an action's text, no control token among them."""
        ...


def answer_ids(renderer: TextRenderer, form: ActionFormat, answer: str) -> tuple[Ids, Ids]:
    """Returns the ids with which a final answer begins, up to the answer itself, and those of the answer.

    The answer is tokenised where it stands, between the tags of the format: ``<answer>`` and its like say nothing about how much
    is known, only when the policy means to stop, so they are read and not counted.
    """
    whole = form.answer(answer)
    start = whole.index(answer)
    ids, head = renderer.text_ids(whole), renderer.text_ids(whole[:start])
    stop = common_prefix(ids[::-1], renderer.text_ids(whole[start + len(answer) :])[::-1])
    begin = common_prefix(ids, head)
    gold = ids[begin : len(ids) - stop]
    return (ids[:begin], gold) if gold else (head, renderer.text_ids(answer))


def state_after(step: SubTrajectory) -> State:
    """Returns the state that a call with a result leads to."""
    return next_state(step.state, Step(step.action, step.call, step.result, observe(step.call, step.result)))


class AnswerReader:
    """Reads the mean log-probability of the tokens of gold answers under a causal LM.

    Args:
        model: a causal LM of transformers.
        renderer: how its states are written.
        form: how answers are written.
        max_context: most tokens that the model reads.
        row_tokens: most tokens of one packed row.
        batch_tokens: most tokens of one forward pass.
    """

    def __init__(
        self, model: Any, renderer: TextRenderer, form: ActionFormat, max_context: int, row_tokens: int, batch_tokens: int
    ) -> None:
        self.model, self.renderer, self.form, self.max_context = model, renderer, form, max_context
        self.row_tokens, self.batch_tokens = row_tokens, batch_tokens
        self._packs = attends_to_all(model.config) and not getattr(model, "_is_stateful", False)
        self._checked = False
        self.spent: Counter[str] = Counter(calls=0, tokens=0)
        """``calls``: states read; ``tokens``: theirs with those of the answers, shared beginnings counted each time."""

    def mean_logprobs(self, states: Sequence[State]) -> list[float]:
        """Returns for each state the mean log-probability (nats) of the tokens of its task's answer; NaN if it does not fit.

        Each token of an answer is the one after a prompt of its own; what prompts share is read once, so that a state costs its
        own tokens, and equal states cost nothing.
        """
        rows = [self._rows(state) for state in states]
        self.spent["calls"] += sum(map(bool, rows))
        self.spent["tokens"] += sum(len(row[-1][0]) + 1 for row in rows if row)
        asked = sorted({prompt for row in rows for prompt, _ in row})
        tokens = sorted({token for row in rows for _, token in row})
        if not asked:
            return [math.nan] * len(states)
        column = {token: i for i, token in enumerate(tokens)}
        table = dict(zip(asked, self._logprobs(asked, tokens), strict=True))
        return [sum(table[p][column[t]] for p, t in row) / len(row) if row else math.nan for row in rows]

    def _rows(self, state: State) -> list[tuple[Ids, int]]:
        """Returns for each token of the answer what comes before it, and the token; nothing if that does not fit."""
        head, gold = answer_ids(self.renderer, self.form, state.task.answer or "")
        prompt = (*self.renderer.ids(state), *head)
        if len(prompt) + len(gold) > self.max_context:
            return []
        return [((*prompt, *gold[:i]), token) for i, token in enumerate(gold)]

    def _logprobs(self, prompts: Sequence[Ids], tokens: Sequence[int]) -> list[list[float]]:
        if not self._packs:
            return logprobs_singly(self.model, prompts, tokens)
        together = logprobs_together(self.model, prompts, tokens, self.row_tokens, self.batch_tokens)
        if self._checked or len(prompts) < 2:
            return together
        # Once per model: a tree's mask is no use if the model has ideas of its own about attention.
        self._checked = True
        single = logprobs_singly(self.model, prompts[:_CHECKED], tokens)
        apart = max(abs(math.exp(a) - math.exp(b)) for i, row in enumerate(single) for a, b in zip(together[i], row, strict=True))
        if apart <= (_TOLERANCE if self.model.dtype is torch.float32 else _LOOSE):
            return together
        log.warning("Gold answers are read one by one: together, this model gives other numbers (by %.2g).", apart)
        self._packs = False
        return logprobs_singly(self.model, prompts, tokens)


def gains(before: Sequence[float], after: Sequence[float], scale: str) -> list[float]:
    """Returns what each step adds to the gold answer's probability (``probability``, IGPO) or its logarithm (``log``, TRACE).

    Args:
        before: mean log-probabilities of the answer's tokens in the states that the steps were taken in.
        after: the same in the states that they led to.
        scale: ``probability`` (of the mean token: exp of the mean log-probability) or ``log``.
    """
    if scale == "log":
        return [b - a for a, b in zip(before, after, strict=True)]
    return [math.exp(b) - math.exp(a) for a, b in zip(before, after, strict=True)]


SCALES: Mapping[str, str] = {"probability": "change of the probability", "log": "change of the log-probability"}
"""What a gain may be measured in."""
