"""The policy that training began with, as the reference of the KL: on every path, with or without adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


class FirstWeights:
    """A copy of the trainable weights as they are now, which can take their place for a while.

    What is not trained is the same for policy and reference, so the copy is all that a reference needs: of LoRA adapters
    next to nothing, of a whole model as much memory as its weights. An adapter that training continues from is part of it,
    as it is part of the policy that training begins with; a bare model with adapters off is not that policy.

    Args:
        weights: the trainable weights.
        first: what they were in the beginning; None takes what they are now.
    """

    def __init__(self, weights: Sequence[nn.Parameter], first: Sequence[Tensor] | None = None) -> None:
        self._weights = list(weights)
        values = weights if first is None else [value.to(w) for value, w in zip(first, weights, strict=True)]
        self.tensors = [value.detach().clone() for value in values]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Swaps the first weights in; nothing is copied. No gradient may be computed meanwhile."""
        now = [weight.data for weight in self._weights]
        for weight, first in zip(self._weights, self.tensors, strict=True):
            weight.data = first
        try:
            yield
        finally:
            for weight, data in zip(self._weights, now, strict=True):
                weight.data = data
