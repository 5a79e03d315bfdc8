"""PPO's clipped objective with one ratio per turn: a whole action is trusted or not, as Turn-PPO has it (arXiv 2512.17008)."""

from __future__ import annotations

import torch

from swirl_env.algos.objective import Loss, LossInputs
from swirl_env.algos.run import Run
from swirl_env.errors import ConfigError

_MOST = 20.0
"""Largest log-ratio: far outside any clip, so that no ratio overflows."""


def turn_clip(run: Run, clip: float) -> Loss | None:
    """Returns the loss for `Run.update`; None for the trainer's own: if `clip` is 0, or if an update is one optimizer step.

    With one optimizer step the policy is the one that acted, so that every ratio is 1 and nothing is clipped.

    Args:
        run: whose trainer it is for.
        clip: how far from 1 the ratio of a turn is trusted.

    Raises:
        ConfigError: if the trainer clips already, or if its ratios would compare two distributions.
    """
    config, agent = run.trainer.config, run.agent
    if not clip or config.epochs * config.minibatches == 1:
        return None
    if config.needs_ratios:
        raise ConfigError(
            f"algo.clip={clip:g} clips the ratio of whole turns, trainer.{config.ratios_of} is about those of tokens. Set "
            f"algo.clip=0, or leave the trainer's off."
        )
    if agent.top_p < 1 or agent.temperature != config.temperature:
        raise ConfigError(
            f"algo.clip={clip:g} compares the policy with the distribution sampled from: sample with top_p=1 at the temperature "
            f"that the trainer scores at; got top_p={agent.top_p} and temperatures {agent.temperature} and {config.temperature}."
        )
    return lambda part: clipped_turns(part, clip)


def clipped_turns(part: LossInputs, clip: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Returns -1/count * sum over turns of min(r A, clamp(r, 1 - clip, 1 + clip) A), and the share of turns that are clipped.

    r = pi(a) / pi_behaviour(a) of the whole action: the product over its tokens.

    Args:
        part: a micro-batch.
        clip: how far from 1 the ratio is trusted.

    Raises:
        ConfigError: if the log-probs at generation are not known.
    """
    if part.behaviour is None:
        raise ConfigError("The clipped ratio of turns needs the log-probs at generation of every token; these steps have none.")
    n = len(part.advantages)
    difference = part.logprobs - part.behaviour.to(part.logprobs)
    log_ratio = torch.zeros(n, dtype=difference.dtype, device=difference.device).index_add(0, part.step, difference)
    ratio = log_ratio.clamp(-_MOST, _MOST).exp()
    gain = part.advantages.to(ratio)
    trusted = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    here = torch.zeros(n, dtype=torch.bool, device=ratio.device)
    here[part.step] = True
    outside = here & (((ratio > 1 + clip) & (gain > 0)) | ((ratio < 1 - clip) & (gain < 0)))
    return -trusted[here].sum() / part.count, {"turns_clipped": outside.sum().detach() / part.count}
