"""Tiny language models and tokenizers for tests, random weights, nothing downloaded; an agent of them."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
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
TOOL_ROLE = CHATML.replace("m['role'] + '\n'", "('ipython' if m['role'] == 'tool' else m['role']) + '\n'")

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>", "<start_of_turn>", "<end_of_turn>")
LESSON = "I look it up. <search_query>Acme Works</search_query>\nand more"
"""What `taught` writes after any prompt, and goes on with after the closing tag."""


@functools.cache
def tokenizer(template: str = CHATML, plain_tokens: tuple[str, ...] = (), widths: bool = False) -> Any:
    """A byte-level BPE tokenizer; `plain_tokens` are added without being special, `widths` folds wide characters (NFKC)."""
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
    bos, eos = ("<bos>", "<end_of_turn>") if template == GEMMA else ("<|endoftext|>", "<|im_end|>")
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token=eos, pad_token="<|endoftext|>")
    made.chat_template = template
    return made


def llama(vocab: int, seed: int = 0, context: int = 2048) -> Any:
    """A Llama with random weights, wide enough apart that sampling is no coin toss."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=vocab, num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.3, **sizes)
    return _ready(LlamaForCausalLM(config))


def gemma2(vocab: int, seed: int = 0) -> Any:
    """A Gemma 2 with random weights: soft caps, and every other layer sees a window of 16 tokens only."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
    config = Gemma2Config(
        vocab_size=vocab, num_key_value_heads=2, sliding_window=16, initializer_range=0.3, max_position_embeddings=2048, **sizes
    )
    return _ready(Gemma2ForCausalLM(config))


def taught(prompts: Sequence[Sequence[int]], said: Sequence[int], vocab: int) -> Any:
    """A Llama that learned by heart to say `said` after each of the prompts."""
    model = llama(vocab)
    model.train().requires_grad_(True)
    width = max(map(len, prompts))
    rows = torch.tensor([[0] * (width - len(p)) + [*p, *said] for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * (len(p) + len(said)) for p in prompts])
    labels = rows.clone()
    labels[:, :width] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = model(input_ids=rows, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _ready(model)


def _ready(model: Any) -> Any:
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval().requires_grad_(False)


def agent(model: Any = None, template: str = CHATML, **options: Any) -> TransformersAgent:
    """An agent of a tiny model."""
    words = tokenizer(template)
    return TransformersAgent(model or llama(len(words)), tokenizer=words, **{"max_new_tokens": 24, **options})
