"""Log-probabilities of a token batch under a causal LM; the logits of a whole sequence never exist at once."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import Tensor, nn

from swirl_env.agents.transformers.interfaces import CausalLM, Decoder
from swirl_env.algos.batch import TokenBatch
from swirl_env.algos.masks import attention
from swirl_env.algos.output_layer import token_entropies, token_logprobs
from swirl_env.errors import ConfigError

log = logging.getLogger(__name__)


class ActionScorer(nn.Module):
    """Wraps a causal LM so that its forward pass gives the log-probs of a batch's action tokens.

    This, not the LM, is what `accelerate` wraps: the hooks of DDP hang on a module's own forward.

    Args:
        model: a causal LM of transformers, with or without LoRA adapters of peft.
        chunk: positions whose logits are computed at a time; 0 lets `output_layer.CHUNK_VALUES` decide.
        temperature: divides the logits; set it to the sampling temperature to score what was sampled from.

    Raises:
        ConfigError: if the model cannot be run on text.
    """

    def __init__(self, model: CausalLM, chunk: int = 0, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = cast("nn.Module", model)
        self.config = text_config(model)
        """Configuration of the text model."""
        self.chunk = chunk
        self.scale = 1.0 / temperature
        try:
            self.plain_head = _plain_head(model, self.config)
        except Exception as error:  # whatever a model raises
            raise ConfigError(f"{type(unwrapped(model)).__name__} cannot be run on text alone: {error}") from error
        """Whether the output layer is a bare projection; otherwise all logits at the action positions are computed."""

    def forward(self, batch: TokenBatch, entropy: bool = False) -> Tensor:
        """Returns log pi of each action token, [M], in float32 at least.

        With `entropy`: [2, M], the second row the entropies (nats) of the distributions that the tokens were drawn from.
        """
        if not self.plain_head:
            return self._from_logits(batch, entropy)
        lm = unwrapped(cast("CausalLM", self.model))
        hidden = decoder_of(lm)(**self._inputs(batch)).last_hidden_state  # [B, L, H]
        head = cast("nn.Linear", lm.get_output_embeddings())
        places = hidden[batch.row, batch.position], head.weight, batch.targets
        softcap = getattr(self.config, "final_logit_softcapping", None)
        options: dict[str, Any] = {"bias": head.bias, "softcap": softcap, "scale": self.scale, "chunk": self.chunk}
        return torch.stack(token_entropies(*places, **options)) if entropy else token_logprobs(*places, **options)

    def features(self, batch: TokenBatch) -> Tensor:
        """Returns the last hidden state at the end of each step's prompt, [N, H] in float32, in the order of the batch."""
        hidden = decoder_of(unwrapped(cast("CausalLM", self.model)))(**self._inputs(batch)).last_hidden_state  # [B, L, H]
        first = batch.offset == 0
        return cast("Tensor", hidden[batch.row[first], batch.position[first]]).float()

    def _inputs(self, batch: TokenBatch) -> dict[str, Any]:
        mask = attention(batch.mask, batch.position_ids, self.config, next(self.model.parameters()).dtype)
        return {"input_ids": batch.input_ids, "attention_mask": mask, "position_ids": batch.position_ids, "use_cache": False}

    def _from_logits(self, batch: TokenBatch, entropy: bool) -> Tensor:
        """Returns what `forward` does, from all logits at the action positions, of a model whose head is no bare projection."""
        logits = self.model(**self._inputs(batch)).logits[batch.row, batch.position]  # [M, V]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        everything = torch.log_softmax(logits * self.scale, -1)
        logp = everything.gather(-1, batch.targets[:, None]).squeeze(-1)
        return torch.stack([logp, torch.special.entr(everything.exp()).sum(-1)]) if entropy else logp


def unwrapped(model: CausalLM) -> CausalLM:
    """Returns the LM inside peft's wrapper (its layers carry the adapters either way)."""
    return cast("CausalLM", cast("Any", model).get_base_model()) if hasattr(model, "peft_config") else model


def decoder_of(lm: CausalLM) -> Decoder:
    """Returns the layers below the output projection; Llama 4 names a whole LM as its decoder, with the layers inside."""
    decoder: Any = lm.get_decoder()
    return cast("Decoder", decoder.model if hasattr(decoder, "lm_head") else decoder)


def text_config(model: CausalLM) -> Any:
    """Returns the configuration of the text model, which a model of text and images keeps inside its own."""
    config = unwrapped(model).config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def freeze_other_modalities(model: CausalLM) -> None:
    """Freezes what text never reaches, such as the image encoder of a multimodal model: it would wait for gradients in vain."""
    lm = unwrapped(model)
    if not hasattr(lm, "get_decoder"):
        return
    decoder, head = cast("nn.Module", decoder_of(lm)), lm.get_output_embeddings()
    if decoder is None or head is None:
        return
    reached = {id(weight) for part in (decoder, head) for weight in part.parameters()}
    rest = [w for w in model.parameters() if w.requires_grad and id(w) not in reached]
    for weight in rest:
        weight.requires_grad_(False)
    if rest:
        log.info("%d weights that text never reaches stay as they are", sum(weight.numel() for weight in rest))


@torch.no_grad()
def _plain_head(model: CausalLM, config: Any) -> bool:
    """Whether hidden states times the output embedding (and its soft cap) are the model's logits, tried on two tokens.

    Some models scale their logits, and adapters may sit on the output layer; what they do is not guessed from their name.
    """
    lm = unwrapped(model)
    head = lm.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = torch.tensor([[0, 1]], device=head.weight.device)
    training = model.training
    model.eval()
    try:
        hidden = decoder_of(lm)(input_ids=ids, use_cache=False).last_hidden_state
        logits = model(input_ids=ids, use_cache=False).logits.float()
    finally:
        model.train(training)
    softcap = getattr(config, "final_logit_softcapping", None)
    mine = nn.functional.linear(hidden, head.weight, head.bias).float()
    mine = mine if softcap is None else torch.tanh(mine / softcap) * softcap
    return bool((mine - logits).abs().max() <= 1e-2 * logits.abs().max())  # bfloat16 agrees to about that
