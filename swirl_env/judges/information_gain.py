"""The information-gain judge: rates a step by how much more probable it makes the gold answer under a language model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, cast

from swirl_env.errors import ConfigError, unknown_name
from swirl_env.fingerprint import named, weights_fingerprint
from swirl_env.judges.evidence import rate_answer
from swirl_env.judges.gold_answer import SCALES, AnswerReader, TextRenderer, answer_ids, gains, state_after
from swirl_env.registry import make_agent, make_format
from swirl_env.types import Answer, SubTrajectory, ToolCall, Verdict

_NAME = "information_gain"
_VERSION = 1
"""Raised with every change of what is read or how it is scored: part of the fingerprint."""


class LocalModel(Protocol):
    """What is used of the `transformers` agent: its model and its renderer."""

    model: Any
    renderer: TextRenderer
    max_context: int


class InformationGainJudge:
    """Rates a call by V(s') - V(s): what its result adds to the gold answer's (log-)probability under a model.

    With ``scale=probability`` V is exp of the mean log-probability of the answer's tokens (IGPO, arXiv 2510.14967, eq. 3 and 4),
    with ``scale=log`` that mean itself, so that the reward is a log-ratio (TRACE, 2607.13988). In training, the algorithms `igpo`
    and `trace` read the policy and the policy that training began with; this judge reads any model, also over stored runs.

    - An answer gets its token F1, as in IGPO (1 if it is right); unscored if the task has no gold answer, and so are its calls.
    - Malformed actions and calls that the tool could not use bring nothing: 0.

    A call is GOOD if it gains more than `threshold`.

    Args:
        model: hub name, folder, ``.gguf`` file, ``package:NAME``, or a loaded model (then give `tokenizer` too).
        scale: ``probability`` or ``log``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        adapter: folder or hub name of a LoRA adapter.
        template: ``chat`` for the model's chat template, ``plain`` for bare text.
        template_options: variables for the chat template.
        tokenizer: for a loaded `model`.
        threshold: gain above which a call is GOOD.
        row_tokens: most tokens of one packed row.
        batch_tokens: most tokens of one forward pass, padding included; a longer row has a pass of its own.
    """

    name = _NAME
    pure = True
    needs_results = True
    """A call is rated by its result (see `swirl_env.protocols.RatesResults`)."""

    def __init__(
        self,
        model: str | Any,
        scale: Literal["probability", "log"] = "probability",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        adapter: str | None = None,
        template: Literal["chat", "plain"] = "chat",
        template_options: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        threshold: float = 0.0,
        row_tokens: int = 2048,
        batch_tokens: int = 2048,
    ) -> None:
        if scale not in SCALES:
            raise unknown_name("scale", str(scale), SCALES)
        if not math.isfinite(threshold):
            raise ConfigError(f"threshold is a gain, a finite number; got {threshold}.")
        if row_tokens < 1 or batch_tokens < 1:
            raise ConfigError(f"row_tokens and batch_tokens are 1 or above; got {row_tokens} and {batch_tokens}.")
        options = {"model": model, "dtype": dtype, "device": device, "adapter": adapter, "tokenizer": tokenizer}
        agent = make_agent("transformers", template=template, template_options=template_options, **options)
        self.local = cast(LocalModel, agent)
        self.scale, self.threshold = scale, threshold
        self._tokens = (row_tokens, batch_tokens)
        self._readers: dict[str, AnswerReader] = {}
        probe = answer_ids(self.local.renderer, make_format("xml", ()), "Oslo 12")
        options = {"weights": weights_fingerprint(self.local.model), "ids": probe, "version": _VERSION}
        self.fingerprint = named(_NAME, {**options, "scale": scale, "threshold": threshold})

    @property
    def spent(self) -> Mapping[str, int]:
        """States read by the model, and their tokens."""
        return sum((reader.spent for reader in self._readers.values()), Counter(calls=0, tokens=0))

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step."""
        verdicts = [self._simple(step) for step in steps]
        read = [i for i, verdict in enumerate(verdicts) if verdict is None]
        before, after = self._values([steps[i] for i in read])
        for i, gain, known in zip(read, gains(before, after, self.scale), before, strict=True):
            verdicts[i] = self._verdict(gain, known)
        return [verdict for verdict in verdicts if verdict is not None]

    def _simple(self, step: SubTrajectory) -> Verdict | None:
        """Returns the verdict on a step that takes no model to rate; None for a call with a result."""
        if step.action.error is not None:
            return Verdict.unscored("The agent could not act.", _NAME)
        if step.state.task.answer is None:
            return Verdict.unscored("The task has no gold answer.", _NAME)
        if type(step.call) is Answer:
            return rate_answer(step, 1.0, _NAME)
        if type(step.call) is not ToolCall:
            return Verdict("scored", 0.0, "BAD", "The action could not be read.", _NAME)
        if step.result is None:
            return Verdict.failed("There is no result to judge the call by.", _NAME)
        if step.result.error == "unavailable":
            return Verdict.unscored("The tool was not available.", _NAME)
        if step.result.error is not None:
            return Verdict("scored", 0.0, "BAD", f"The tool could not use this call ({step.result.error}).", _NAME)
        return None

    def _values(self, steps: Sequence[SubTrajectory]) -> tuple[list[float], list[float]]:
        """Returns the mean log-probabilities of the answers before and after each step."""
        before, after = [math.nan] * len(steps), [math.nan] * len(steps)
        for form in dict.fromkeys(step.state.settings.format for step in steps):
            mine = [i for i, step in enumerate(steps) if step.state.settings.format == form]
            states = [steps[i].state for i in mine] + [state_after(steps[i]) for i in mine]
            values = self._reader(form).mean_logprobs(states)
            for n, i in enumerate(mine):
                before[i], after[i] = values[n], values[n + len(mine)]
        return before, after

    def _reader(self, form: str) -> AnswerReader:
        if form not in self._readers:
            local = self.local
            self._readers[form] = AnswerReader(
                local.model, local.renderer, make_format(form, ()), local.max_context, *self._tokens
            )
        return self._readers[form]

    def _verdict(self, gain: float, before: float) -> Verdict:
        if not math.isfinite(gain):
            most = f"{self.local.max_context:,} tokens"
            return Verdict.failed(f"The conversation does not fit the judge's model ({most}), or it gave no probability.", _NAME)
        critique = f"Gains {gain:+.4g} of the gold answer's {self.scale} (before: {math.exp(before):.2g} per token)."
        return Verdict("scored", gain, "GOOD" if gain > self.threshold else "BAD", critique, _NAME, {"before": before})
