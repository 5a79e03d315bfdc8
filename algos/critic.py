"""A value head: what a state is worth, read off the policy's own features of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from swirl_env.algos import credit


class Critic:
    """V(s): a small network on the policy's last hidden state at the end of s, trained by squared error.

    The features carry no gradient, so that the critic never changes the policy. It begins at V = 0. Features are divided by their
    root mean square, since hidden states of large models are large.

    Args:
        features: H, size of the hidden states.
        width: units of the hidden layer.
        lr: learning rate (Adam).
        seed: of the first weights.
    """

    def __init__(self, features: int, width: int = 64, lr: float = 1e-3, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(width, 1)
            self.head = nn.Sequential(nn.Linear(features, width), nn.Tanh(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr)

    @torch.no_grad()
    def values(self, features: Tensor) -> credit.Floats:
        """Returns V of states, [N].

        Args:
            features: [N, H].
        """
        return np.asarray(self._forward(features).double().numpy(), dtype=np.float64)

    def fit(self, features: Tensor, targets: ArrayLike, valid: ArrayLike, steps: int) -> float:
        """Makes some optimizer steps on all states at once; returns the mean squared error before them.

        Args:
            features: [N, H].
            targets: [N] what V is to predict.
            valid: [N] bool, whether the target is known.
            steps: how many.
        """
        used = torch.as_tensor(np.flatnonzero(np.asarray(valid, np.bool_)))
        if not len(used):
            return 0.0
        inputs, wanted = features[used], torch.as_tensor(np.asarray(targets, np.float32))[used]
        errors = []
        for _ in range(steps):
            error = (self._forward(inputs) - wanted).square().mean()
            self.optimizer.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]  # torch's
            self.optimizer.step()
            errors.append(error.item())
        return errors[0]

    def _forward(self, features: Tensor) -> Tensor:
        scaled = features / features.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
        out: Tensor = self.head(scaled)
        return out.squeeze(-1)

    def state_dict(self) -> dict[str, Any]:
        """Returns weights and optimizer, for checkpoints."""
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
