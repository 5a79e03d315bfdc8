"""What the launcher of several processes may ask for, and how their group ends."""

from __future__ import annotations

import gc
import logging

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch.distributed.tensor import DTensor

from swirl_env.agents.transformers.interfaces import CausalLM
from swirl_env.errors import ConfigError

log = logging.getLogger(__name__)


def check_launcher() -> None:
    """Refuses a launcher's configuration that splits the weights, before accelerate acts on it.

    Such a configuration wraps model and optimizer in ways of its own; what is split here is split by `sharding`, which leaves a
    whole policy in every process for rollouts and checkpoints. On CPUs accelerate leaves the configuration out without a word,
    and without the package it names it fails.

    Raises:
        ConfigError: names what was asked for.
    """
    asked = [name for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM") if parse_flag_from_env(f"ACCELERATE_USE_{name}")]
    if asked:
        raise _split(asked[0])


def check_distribution(accelerator: Accelerator, model: CausalLM) -> None:
    """Refuses weights that are split over processes.

    Raises:
        ConfigError: names the kind of distribution.
    """
    kind = accelerator.distributed_type.value
    if kind != "NO" and not kind.startswith("MULTI_"):
        raise _split(kind)
    for weight in model.parameters():
        if isinstance(weight.data, DTensor) or hasattr(weight, "ds_id"):
            raise _split("FSDP (fully_shard)" if isinstance(weight.data, DTensor) else "DEEPSPEED (ZeRO)")


def _split(kind: str) -> ConfigError:
    return ConfigError(
        f"{kind} is asked for, which splits the weights that rollouts and checkpoints need whole. Start with accelerate launch "
        f"--multi_gpu instead: trainer.shard=true then splits gradients and optimizer (FSDP2), lora.rank=8 makes them small."
    )


def one_step_per_update(accelerator: Accelerator) -> None:
    """Takes gradient accumulation out of accelerate's hands: it would divide the gradient, whose micro-batches are ours."""
    if accelerator.gradient_accumulation_steps != 1:
        log.warning(
            "gradient_accumulation_steps=%d of accelerate's configuration is not used: trainer.micro_tokens splits an update",
            accelerator.gradient_accumulation_steps,
        )
        accelerator.gradient_accumulation_steps = 1


def shut_down(accelerator: Accelerator) -> None:
    """Ends trackers and the process group, with the threads that the group keeps for its collectives.

    Destroying the group is not enough: its threads live as long as anyone holds it, and the wrapper of the model (DDP) does.
    Such a thread may still be about to let go of the last collective's tensors when Python shuts down, and aborts the process
    over it ("terminate called without an active exception"). So whoever holds the group goes first, and the group next, while
    Python runs. Wrapped models that the caller still holds are the caller's to drop before.

    Without a group, and without memory of a device to give back, there is no hurry: Python's own collector takes the rest, where
    a search through all that a process has loaded would take longer than a small update.

    Args:
        accelerator: whose group it is; models and optimizers that it prepared are forgotten if it has one.
    """
    grouped = dist.is_available() and dist.is_initialized()
    if grouped or accelerator.device.type != "cpu":
        accelerator.free_memory()
        gc.collect()  # the wrapper is part of reference cycles
    accelerator.end_training()
