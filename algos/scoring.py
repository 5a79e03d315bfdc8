"""Log-probabilities of a token batch under a causal LM, without the logits of a whole sequence ever being held."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from swirl_env.algos.batch import TokenBatch
from swirl_env.algos.losses import token_logprobs


class ActionScorer(nn.Module):
    """Wraps a causal LM so that its forward pass gives the log-probs of a batch's action tokens.

    This, not the LM, is what `accelerate` wraps: hooks of DDP and FSDP hang on a module's own forward.

    Args:
        model: a causal LM of transformers, with or without LoRA adapters of peft.
        chunk: positions whose logits are computed at a time; 0 lets `losses.CHUNK_VALUES` decide.
        temperature: divides the logits; set it to the sampling temperature to score what was sampled from.
    """

    def __init__(self, model: Any, chunk: int = 0, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.chunk = chunk
        self.scale = 1.0 / temperature
        self.plain_head = _plain_head(model)
        """Whether the output layer is a bare projection; otherwise all logits at the action positions are computed."""

    def forward(self, batch: TokenBatch) -> Tensor:
        """Returns log pi of each action token, [M], in float32 at least."""
        mask = None if batch.mask is None else _additive(batch.mask, next(self.model.parameters()).dtype)
        lm = _unwrapped(self.model)
        given = {"input_ids": batch.input_ids, "attention_mask": mask, "position_ids": batch.position_ids, "use_cache": False}
        if not self.plain_head:
            logits = self.model(**given).logits[batch.row, batch.position]  # [M, V]
            logits = logits if logits.dtype == torch.float64 else logits.float()
            return torch.log_softmax(logits * self.scale, -1).gather(-1, batch.targets[:, None]).squeeze(-1)
        hidden = lm.get_decoder()(**given).last_hidden_state  # [B, L, H]
        head = lm.get_output_embeddings()
        softcap = getattr(lm.config.get_text_config(), "final_logit_softcapping", None)
        return token_logprobs(
            hidden[batch.row, batch.position],
            head.weight,
            batch.targets,
            bias=head.bias,
            softcap=softcap,
            scale=self.scale,
            chunk=self.chunk,
        )


def _unwrapped(model: Any) -> Any:
    """Returns the LM inside peft's wrapper (its layers carry the adapters either way)."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a mask of zeros and the dtype's lowest value, which every attention implementation takes."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


@torch.no_grad()
def _plain_head(model: Any) -> bool:
    """Whether hidden states times the output embedding (and its soft cap) are the model's logits, tried on two tokens.

    Some models scale their logits, and adapters may sit on the output layer; what they do is not guessed from their name.
    """
    lm = _unwrapped(model)
    head = lm.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = torch.tensor([[0, 1]], device=head.weight.device)
    training = model.training
    model.eval()
    try:
        hidden = lm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        logits = model(input_ids=ids, use_cache=False).logits.float()
    finally:
        model.train(training)
    softcap = getattr(lm.config.get_text_config(), "final_logit_softcapping", None)
    mine = nn.functional.linear(hidden, head.weight, head.bias).float()
    mine = mine if softcap is None else torch.tanh(mine / softcap) * softcap
    return bool((mine - logits).abs().max() <= 1e-2 * logits.abs().max())  # bfloat16 agrees to about that
