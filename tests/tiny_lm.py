"""Tiny language models and tokenizers for tests, random weights, nothing downloaded; an agent of them."""

import functools
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from swirl_env.agents.transformers import TransformersAgent

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINK_STRIPPING = CHATML.replace("m['content']", "m['content'].split('</think>')[-1]")
THINK_OPENING = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
HARMONY = (
    "{{ '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + ('<|channel|>final' if m['role'] == 'assistant' else '') + '<|message|>' }}"
    "{{ m['content'] + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
"""How gpt-oss is spoken to, in short: its package holds no template."""
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TRIMMING = CHATML.replace("m['content']", "(m['content'] | trim)")
QUOTING = CHATML.replace("m['content']", "(m['content'] | tojson)")
UPPER = CHATML.replace("m['content']", "(m['content'] | upper)")
DEMANDING = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system message, please') }}{% endif %}" + CHATML
DATED = "{{ 'Today is ' + strftime_now('%d %b %Y') + '.\n' }}" + CHATML
TOOL_ROLE = CHATML.replace("m['role'] + '\n'", "('ipython' if m['role'] == 'tool' else m['role']) + '\n'")

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>", "<start_of_turn>", "<end_of_turn>")
LESSON = "I look it up. <search_query>Acme Works</search_query>\nand more"
"""What `taught` writes after any prompt, and goes on with after the closing tag."""


@functools.cache
def tokenizer(
    template: str = CHATML, plain_tokens: tuple[str, ...] = (), widths: bool = False, special: tuple[str, ...] = ()
) -> Any:
    """A byte-level BPE tokenizer.

    `plain_tokens` are added without being special, `special` as special ones; `widths` folds wide characters (NFKC).
    """
    lines = [LESSON, "<search_query>Oslo</search_query>\n", "<answer>Oslo</answer>\n", "QUERY -> RESULT. No tool call", "12 + 30"]
    inner = Tokenizer(models.BPE())
    # Without the usual split into words, a token may reach over the end of a tag.
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    if widths:
        inner.normalizer = normalizers.NFKC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=310, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(lines * 5, trainer)
    inner.add_tokens([AddedToken(text, special=False, normalized=widths) for text in plain_tokens])
    inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    bos, eos = ("<bos>", "<end_of_turn>") if template == GEMMA else ("<|endoftext|>", "<|im_end|>")
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token=eos, pad_token="<|endoftext|>")
    made.chat_template = template
    return made


@functools.cache
def sentencepiece(template: str = CHATML, legacy: bool = False) -> Any:
    """A BPE tokenizer like SentencePiece's: blanks are "▁", and one is put before a text (`legacy`: behind any token too)."""
    lines = [LESSON, "Who wrote Emma? I look it up. Emma is a novel by Austen.", "user assistant system", "Oslo, a city"]
    inner = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if legacy:
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    names = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=[*names, *bytes_], show_progress=False)
    inner.train_from_iterator(lines * 5, trainer)
    # Only the names are special: bytes are ordinary tokens.
    content = json.loads(inner.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in names]
    inner = Tokenizer.from_str(json.dumps(content))
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")
    made.chat_template = template
    return made


@functools.cache
def unigram(template: str = CHATML, prepend: str = "always") -> Any:
    """A Unigram tokenizer without digits; `prepend` tells where it puts a blank before a text: always, first or never."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ<>/_{}()[]|'\"\\\n\t.,?-"
    lines = [LESSON, "Who wrote Emma? I look it up. Emma is a novel by Austen.", "user assistant system", letters]
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend)
    inner.decoder = decoders.Metaspace("▁", prepend)
    names = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=names, unk_token="<unk>", show_progress=False)
    inner.train_from_iterator(lines * 5, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")
    made.chat_template = template
    return made


def llama(vocab: int, seed: int = 0, context: int = 2048) -> Any:
    """A Llama with random weights, wide enough apart that sampling is no coin toss."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=vocab, num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.3, **sizes)
    return ready(LlamaForCausalLM(config))


def gemma2(vocab: int, seed: int = 0) -> Any:
    """A Gemma 2 with random weights: soft caps, and every other layer sees a window of 16 tokens only."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
    config = Gemma2Config(
        vocab_size=vocab, num_key_value_heads=2, sliding_window=16, initializer_range=0.3, max_position_embeddings=2048, **sizes
    )
    return ready(Gemma2ForCausalLM(config))


_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
}
_LINEAR: dict[str, Any] = {
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
_MAMBA2 = {"hidden_size": 32, "num_hidden_layers": 3, "num_heads": 8, "state_size": 16, "n_groups": 2, "chunk_size": 16}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lfm2": ("Lfm2ForCausalLM", "Lfm2Config", {**_SIZES, "layer_types": ["conv", "full_attention", "conv", "conv"]}),
    "qwen3_next": ("Qwen3NextForCausalLM", "Qwen3NextConfig", {**_SIZES, **_LINEAR, **_EXPERTS}),
    "qwen3_5": ("Qwen3_5ForCausalLM", "Qwen3_5TextConfig", {**_SIZES, **_LINEAR}),
    "mamba2": ("Mamba2ForCausalLM", "Mamba2Config", {**_MAMBA2, "head_dim": 8, "initializer_range": 0.3}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**_SIZES, "head_dim": 8, "sliding_window": 8}),
}
"""Models whose layers do more than look back on all positions: class, configuration, sizes."""


def family(name: str, vocab: int = 300, seed: int = 0) -> Any:
    """A model of a family with random weights; skips the test if the installed transformers has it not."""
    model, config, sizes = FAMILIES[name]
    if not hasattr(transformers, config):
        pytest.skip(f"this transformers has no {config}")
    torch.manual_seed(seed)
    return ready(getattr(transformers, model)(getattr(transformers, config)(vocab_size=vocab, **sizes)))


def taught(prompts: Sequence[Sequence[int]], words: Sequence[int], vocab: int) -> Any:
    """A Llama that learned by heart to say `words` after each of the prompts."""
    model = llama(vocab)
    model.train().requires_grad_(True)
    width = max(map(len, prompts))
    rows = torch.tensor([[0] * (width - len(p)) + [*p, *words] for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * (len(p) + len(words)) for p in prompts])
    labels = rows.clone()
    labels[:, :width] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = model(input_ids=rows, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return ready(model)


class Parrot(torch.nn.Module):
    """A model that says one and the same thing after any prompt, whatever is drawn."""

    def __init__(self, words: Any, script: Sequence[int]) -> None:
        super().__init__()
        self.script, self.config = list(script), LlamaConfig(vocab_size=len(words), num_hidden_layers=1)
        self.device = torch.device("cpu")
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **inputs: Any) -> Any:
        """Logits of the next word at the last position, and a cache that counts the passes."""
        cache = past_key_values or SimpleNamespace(passes=0, reorder_cache=lambda rows: None)
        logits = torch.zeros(len(input_ids), 1, self.config.vocab_size)
        logits[:, :, self.script[min(cache.passes, len(self.script) - 1)]] = 100.0
        cache.passes += 1
        return SimpleNamespace(logits=logits, past_key_values=cache)


def parrot(text: str, words: Any = None, **options: Any) -> TransformersAgent:
    """An agent that says a text (tokens by name are tokens) and then goes on with its last word."""
    words = words or tokenizer()
    script = words.encode(text, add_special_tokens=False)
    return TransformersAgent(Parrot(words, script), tokenizer=words, **{"max_new_tokens": len(script) + 8, **options})


def ready(model: Any) -> Any:
    """The model in evaluation mode, without an end of its own."""
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval().requires_grad_(False)


def agent(model: Any = None, template: str = CHATML, **options: Any) -> TransformersAgent:
    """An agent of a tiny model."""
    words = tokenizer(template)
    return TransformersAgent(model or llama(len(words)), tokenizer=words, **{"max_new_tokens": 24, **options})
