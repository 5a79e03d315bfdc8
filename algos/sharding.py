"""FSDP2 (torch's `fully_shard`): weights, gradients and optimizer state of the policy in training split over the processes.

The split copy alone is trained. Each process keeps the whole policy next to it, which generates, scores and is saved; after every
optimizer step it takes over the new weights, one tensor at a time. So rollouts need no other process, however many tokens each
of them draws.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from swirl_env.agents.transformers.interfaces import CausalLM
from swirl_env.algos.scoring import ActionScorer, decoder_of, unwrapped
from swirl_env.algos.splitting import split_like, whole
from swirl_env.errors import ConfigError


class ShardedPolicy(nn.Module):
    """A copy of a scorer whose weights are split over the processes; its forward pass waits for all of them.

    Args:
        scorer: the whole policy.
        accelerator: whose processes share the copy.

    Raises:
        ConfigError: for adapters and for fp16.
    """

    def __init__(self, scorer: ActionScorer, accelerator: Accelerator) -> None:
        super().__init__()
        if hasattr(scorer.model, "peft_config"):
            raise ConfigError("trainer.shard splits whole models; adapters are small: train them with trainer.shard=false.")
        if accelerator.mixed_precision == "fp16":
            raise ConfigError(
                "trainer.shard does not go with precision=fp16, whose loss scale is not shared; use precision=bf16."
            )
        self._accelerator = accelerator
        self.copy = copy.deepcopy(scorer)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        decoder = decoder_of(unwrapped(_lm(self.copy)))
        for blocks in (module for module in decoder.children() if isinstance(module, nn.ModuleList)):  # type: ignore[attr-defined]
            for block in blocks:
                fully_shard(block, mesh=mesh)
        fully_shard(self.copy, mesh=mesh)
        self.weights = {name: weight for name, weight in self.copy.model.named_parameters() if weight.requires_grad}
        """The trainable weights by name, split."""

    def forward(self, *args: object) -> Tensor:
        """Returns what the scorer returns."""
        with self._accelerator.autocast():
            return self.copy(*args)  # type: ignore[no-any-return]

    @torch.no_grad()
    def write_to(self, weights: Mapping[str, Tensor]) -> None:
        """Copies the split weights into whole ones of the same names."""
        for name, weight in self.weights.items():
            weights[name].copy_(whole(weight))

    @torch.no_grad()
    def read_from(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over whole weights of the same names."""
        for name, weight in self.weights.items():
            weight.copy_(split_like(weights[name].detach(), weight))


def _lm(scorer: ActionScorer) -> CausalLM:
    return scorer.model  # type: ignore[return-value]  # a module that is a causal LM, see ActionScorer
