"""What is used of a causal language model and its tokenizer, as transformers (or a user's own code) provides them.

Whatever has these attributes will do; nothing asks for a class of transformers by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class LMOutput(Protocol):
    """What a forward pass returns. Its cache is under `cache` or `past_key_values`, by version (see `sampling`)."""

    @property
    def logits(self) -> Tensor:
        """Scores of all tokens at each position, [B, L, V]."""
        ...


class Decoder(Protocol):
    """The layers below the output projection."""

    def __call__(self, **inputs: object) -> Any:
        """Returns what has `last_hidden_state`, [B, L, H]."""
        ...


class CausalLM(Protocol):
    """A causal LM, bare or in peft's wrapper. Always an `nn.Module` too, which no Protocol can say."""

    training: bool

    @property
    def config(self) -> Any:
        """Sizes and options; every family of models has its own."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def __call__(self, **inputs: object) -> LMOutput:
        """Runs the model over `input_ids`, [B, L]."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Iterates over the weights."""
        ...

    def eval(self) -> CausalLM:
        """Switches dropout off."""
        ...

    def to(self, device: torch.device) -> CausalLM:
        """Moves the weights."""
        ...

    def train(self, mode: bool = True) -> CausalLM:
        """Switches dropout on."""
        ...

    def get_decoder(self) -> Decoder:
        """Returns the layers below the output projection."""
        ...

    def get_output_embeddings(self) -> nn.Module:
        """Returns the output projection."""
        ...

    def save_pretrained(self, folder: Any) -> object:
        """Writes a checkpoint that `load_model` reads."""
        ...


def unwrapped(model: CausalLM) -> Any:
    """Returns the model inside peft's wrapper, or the model itself if it has none."""
    inner = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


class AddedToken(Protocol):
    """A token that was added to the vocabulary by name."""

    @property
    def special(self) -> bool:
        """Whether decoding leaves it out."""
        ...


class Tokenizer(Protocol):
    """A fast tokenizer of transformers."""

    chat_template: Any
    """Source of the chat template, or several by name; None without one."""

    @property
    def bos_token_id(self) -> int | None:
        """The id that opens a text."""
        ...

    @property
    def eos_token_id(self) -> int | None:
        """The id that ends a turn."""
        ...

    @property
    def pad_token_id(self) -> int | None:
        """The id that fills rows up."""
        ...

    @property
    def unk_token_id(self) -> int | None:
        """The id that stands for what the vocabulary does not hold."""
        ...

    @property
    def all_special_ids(self) -> list[int]:
        """Ids with a part of their own: ends, padding and the like."""
        ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]:
        """Id -> token for all tokens that were added by name."""
        ...

    def __len__(self) -> int:
        """Returns the size of the vocabulary, added tokens included."""
        ...

    def get_vocab(self) -> Mapping[str, int]:
        """Returns the id of each token."""
        ...

    def encode(self, text: str, **options: Any) -> list[int]:
        """Returns the ids of a text."""
        ...

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """Returns the text of ids."""
        ...

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        """Renders messages."""
        ...

    def save_pretrained(self, folder: Any) -> object:
        """Writes the files that `load_tokenizer` reads."""
        ...
