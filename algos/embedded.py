"""The embedded policy: a causal LM of about 0.1M parameters, and the Atlas settings that it learns in minutes on a CPU.

An ordinary checkpoint of transformers (a Llama and a fast tokenizer with a chat template), so agents, trainer and exports
need to know nothing about it. What makes it small is its vocabulary: the words of the worlds, each one token.

    setting = SETTINGS["main"]
    engine = setting.engine("test")
    agent = embedded_agent(warm_start(setting, seed=0))
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.env import build_engine
from swirl_env.episodes.engine import Engine
from swirl_env.errors import unknown_name
from swirl_env.protocols import TaskSource
from swirl_env.registry import make_format, make_tasks
from swirl_env.tasks.atlas.relations import KINDS
from swirl_env.tasks.names import LISTS, Split
from swirl_env.types import SEARCH, Malformed

TASKS, FORMAT = "atlas", "xml"
"""The task source of the settings and the format that the policy is taught."""
WORDS = 40
"""Words of each list that names are made of, in every split and setting: the vocabulary is the same for all."""
CONTEXT = 512
"""Longest state with its action, in tokens."""
MAX_NEW_TOKENS = 24
"""Longest action, in tokens; the longest sensible one has 9."""
USER, ASSISTANT, TOOL, END, UNKNOWN = "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<unk>"
SPECIAL = (END, USER, ASSISTANT, TOOL)
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_TOKEN = r"</?\w+>|\[\d+\]|->|\.\.\.|\w+|[^\w\s]"
_SCANNED = 1_000
"""Questions of each setting that are read for their words."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One embedded task: which questions, how many steps, and how noisy its expert is."""

    name: str
    min_hops: int
    max_hops: int
    max_steps: int
    noise: float
    """Rate of stray actions in the demonstrations of the warm start."""
    train_documents: int = 10_400
    """Size of a training world."""
    test_documents: int = 1_300
    """Size of a validation or test world."""
    top_k: int = 1
    """Documents that a search shows."""

    def tasks(self, split: Split = "train", seed: int = 0, size: int = 100_000) -> TaskSource:
        """Returns the questions of one world; entities of the three splits never share a name, whatever the seed."""
        documents = self.train_documents if split == "train" else self.test_documents
        return make_tasks(
            TASKS,
            split=split,
            size=size,
            documents=documents,
            min_hops=self.min_hops,
            max_hops=self.max_hops,
            comparisons=0.0,
            values=False,
            words=WORDS,
            seed=seed,
        )

    def engine_options(self) -> dict[str, Any]:
        """Returns the options of an engine, apart from its tasks."""
        # A world is small: compiling the search would take longer than all searches together.
        tools = [{"name": "search", "top_k": self.top_k, "numba": "off"}]
        return {"tools": tools, "prompt": "question", "max_steps": self.max_steps}

    def engine(self, split: Split = "train", seed: int = 0, **options: Any) -> Engine:
        """Returns the engine of episodes over the questions of one world; `options` go to `swirl_env.env.build_engine`."""
        return build_engine(self.tasks(split, seed), **{**self.engine_options(), **options})


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (Setting("easy", 1, 4, 6, 0.3), Setting("main", 3, 5, 7, 0.3), Setting("sparse", 4, 6, 8, 0.3))
}
"""Name -> setting. In ``sparse`` an outcome alone hardly ever rewards the warm start; ``easy`` holds a curriculum."""


def get_setting(setting: str | Setting) -> Setting:
    """Returns the setting of a name."""
    if isinstance(setting, Setting):
        return setting
    if setting not in SETTINGS:
        raise unknown_name("setting", setting, SETTINGS)
    return SETTINGS[setting]


def embedded_agent(folder: Path | str, **options: Any) -> TransformersAgent:
    """Returns the policy saved in a folder as an agent; `options` are those of `TransformersAgent`."""
    agent = TransformersAgent(str(folder), **{"device": "cpu", "max_new_tokens": MAX_NEW_TOKENS, "batch_size": 32, **options})
    # Each of its special tokens opens or ends a turn, also the one for tools, which the template never writes.
    agent.end_ids |= agent.renderer.codec.special_ids
    return agent


def build_model(vocabulary: int, seed: int, width: int = 64, layers: int = 2) -> LlamaForCausalLM:
    """Returns the policy with random weights: a Llama with tied embeddings and heads of 32 dimensions.

    Args:
        vocabulary: number of tokens.
        seed: the weights follow from it.
        width: of the hidden states, a multiple of 32; the feed-forward layers are twice as wide.
        layers: number of layers. The sizes by default make 0.1M parameters, 160 and 4 make 1.1M.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=CONTEXT,
        initializer_range=0.04,
        tie_word_embeddings=True,
        # Distances within an episode are short: slow rotations would never turn.
        rope_parameters={"rope_type": "default", "rope_theta": 1_000.0},
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def build_tokenizer(words: Iterable[str] | None = None) -> PreTrainedTokenizerFast:
    """Returns the tokenizer: one token per word, tag, sign and digit.

    Text is split at blanks and around tags and signs, and joined with blanks again, so that sampled ids are the ids of their
    text. A number is its digits, those after the first marked as going on (``14`` is ``1 ##4``); other words that are not
    known are one token, ``<unk>``.

    Args:
        words: what counts as a word; None takes all that the settings' worlds write.
    """
    known = sorted(set(vocabulary() if words is None else words) - set(SPECIAL) - {UNKNOWN})
    digits = [*"0123456789", *(f"##{d}" for d in "0123456789")]
    tokens = dict.fromkeys([*SPECIAL, UNKNOWN, *digits, *known])
    inner = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(_TOKEN), "removed", invert=True)
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[USER, ASSISTANT, TOOL],
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Returns every word that questions, documents and replies of the settings' environments hold, sorted; no numbers."""
    words = {word for kind in KINDS for part in (LISTS[kind][0], LISTS[kind][2]) for word in part[:WORDS]}
    for text in _texts():
        words.update(re.findall(_TOKEN, text))
    return tuple(sorted(word for word in words if not word.isdecimal()))


def _texts() -> Iterator[str]:
    form = make_format(FORMAT, (SEARCH,))
    for reason in (form.parse(text) for text in ("", f"<{SEARCH}>", "<answer>", "<answer></answer>")):
        if isinstance(reason, Malformed):
            yield form.correction(reason)
    yield from (form.call(SEARCH, "x"), form.answer("unknown"), "->", *(f"[{rank}]" for rank in range(1, 6)), "? . ,")
    yield from (
        "No results: no passage holds any of these words.",
        "No results: the query holds only words that are too common to search for.",
        "No results: the query holds no words.",
    )
    tasks = SETTINGS["main"].tasks("test")
    yield from (passage.text for passage in tasks.corpus or ())
    for setting in SETTINGS.values():
        tasks = setting.tasks("test")
        for i in range(_SCANNED):
            yield tasks[i].question
            yield from (step.query for step in tasks[i].plan)
