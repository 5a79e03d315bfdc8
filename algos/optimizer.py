"""AdamW on float32 weights, whatever the policy's own dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from swirl_env.algos.splitting import split_like, whole
from swirl_env.errors import ConfigError


class MasterAdamW:
    """AdamW that moves a float32 copy of every bfloat16 weight, and rounds the copy into the policy after each step.

    A bfloat16 number has 8 bits of precision: a step below 1/512 of a weight is rounded away, and at the learning rates of
    fine-tuning nearly all steps are. The copy adds such steps up until they show. Float32 weights are moved in place.

    Args:
        weights: the trainable weights of the policy.
        lr: learning rate of the first step.
        betas: of AdamW.
        weight_decay: of AdamW.

    Raises:
        ConfigError: for float16 weights, whose gradients overflow, and if there is nothing to train.
    """

    def __init__(self, weights: Sequence[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        if not weights:
            raise ConfigError("No weight of this model is trainable: leave some unfrozen, or add LoRA adapters.")
        if any(weight.dtype == torch.float16 for weight in weights):
            raise ConfigError("float16 weights cannot be trained: gradients overflow. Load them as bfloat16 or float32.")
        self.weights = list(weights)
        self.masters: list[nn.Parameter] = [
            nn.Parameter(weight.detach().float().clone()) if weight.dtype == torch.bfloat16 else weight for weight in self.weights
        ]
        self.adamw = torch.optim.AdamW(self.masters, lr=lr, betas=betas, weight_decay=weight_decay)

    @property
    def copies(self) -> list[tuple[int, nn.Parameter, nn.Parameter]]:
        """The weights that have a copy: (index, weight, copy)."""
        pairs = zip(self.weights, self.masters, strict=True)
        return [(i, weight, master) for i, (weight, master) in enumerate(pairs) if master is not weight]

    def read_gradients(self) -> None:
        """Hands the gradients of the policy's weights to their copies."""
        for _, weight, master in self.copies:
            master.grad = None if weight.grad is None else weight.grad.float()

    def clip(self, max_norm: float) -> Tensor:
        """Scales the gradients down to a norm of at most `max_norm` over all of them; returns the norm before."""
        return whole(nn.utils.clip_grad_norm_(self.masters, max_norm))

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Makes one step at a learning rate."""
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        for _, weight, master in self.copies:
            weight.copy_(master)

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            weight.grad = master.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Returns moments, step counts and copies by name, whole, from which `load` goes on exactly; every process calls it."""
        state = {f"{i}.master": master.detach() for i, _, master in self.copies}
        for i, moments in self.adamw.state_dict()["state"].items():
            state |= {f"{i}.{name}": value for name, value in moments.items()}
        return {name: whole(value) for name, value in state.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continues from what `tensors` returned."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, _, what = name.partition(".")
            if what == "master":
                self.masters[int(index)].copy_(split_like(value, self.masters[int(index)]))
            else:
                like = self.masters[int(index)]
                state.setdefault(int(index), {})[what] = split_like(value, like) if value.shape == like.shape else value
        self.adamw.load_state_dict({**self.adamw.state_dict(), "state": state})
