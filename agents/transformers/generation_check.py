"""Whether a model with running states generates what it should: tried once, before anything is trusted to it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from swirl_env.agents.transformers.interfaces import CausalLM, unwrapped
from swirl_env.agents.transformers.sampling import Generation, Request, Sampling, generate
from swirl_env.errors import ConfigError
from swirl_env.kv_cache import attends_to_all

_ROWS = ((0, 1, 2, 3, 4, 5), (1, 2), (2, 1, 0))
"""Rows of several lengths, so that two of them are padded."""
_STEPS = (4, 2, 3)
"""Tokens for each row: one leaves the batch while the others go on."""


def check_generation(model: CausalLM, batch_size: int) -> None:
    """Compares generated log-probs with a plain pass, and a batch with its rows, unless all layers are ordinary attention.

    Running states (Mamba, linear attention, convolutions) have caches of many kinds: some cannot be passed on, some take in
    the padding of a batch, some cannot drop rows that ended.

    Raises:
        ConfigError: if the model cannot be used, or with ``batch_size=1`` only.
    """
    base = unwrapped(model)
    if attends_to_all(model.config) and not getattr(base, "_is_stateful", False):
        return
    name = type(base).__name__
    requests = [Request(row, steps, lambda ids: False) for row, steps in zip(_ROWS, _STEPS, strict=True)]
    greedy = Sampling(temperature=0)
    training = model.training
    model.eval()
    try:
        alone = _attempt(lambda: [generate(model, [request], greedy)[0] for request in requests])
        if alone is None or not all(_agree(model, g, _plain(model, r, g)) for r, g in zip(requests, alone, strict=True)):
            raise ConfigError(f"{name} keeps its state in a way that generation here cannot carry on; use another model.")
        if batch_size == 1:
            return
        together = _attempt(lambda: generate(model, requests, greedy))
        if together is None or not all(_agree(model, a, b.logprobs) for a, b in zip(alone, together, strict=True)):
            raise ConfigError(f"{name} cannot generate several rows at once as it does each alone: set batch_size=1.")
    finally:
        model.train(training)


def _attempt(run: Callable[[], list[Generation]]) -> list[Generation] | None:
    try:
        return run()
    except Exception:  # whatever a cache of another kind raises: it cannot be used so
        return None


@torch.inference_mode()
def _plain(model: CausalLM, request: Request, generation: Generation) -> list[float]:
    """Returns the log-probs of generated ids by one pass over all of them, without a cache."""
    ids = torch.tensor([[*request.ids, *generation.ids]], device=model.device)
    logp = model(input_ids=ids, use_cache=False).logits[0, len(request.ids) - 1 : -1].float().log_softmax(-1)  # [T, V]
    values: list[float] = logp.gather(-1, ids[0, len(request.ids) :, None])[:, 0].tolist()
    return values


def _agree(model: CausalLM, generation: Generation, logprobs: list[float]) -> bool:
    tolerance = 1e-3 if next(iter(model.parameters())).dtype in (torch.float32, torch.float64) else 0.25
    return all(abs(a - b) <= tolerance for a, b in zip(generation.logprobs, logprobs, strict=True))
