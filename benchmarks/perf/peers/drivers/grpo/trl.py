"""Updates of TRL's `GRPOTrainer`: sampling, scoring and one optimizer step; several turns by its `rollout_func`."""

from __future__ import annotations

import importlib
import itertools
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any


def build(options: dict[str, Any], look_up: object) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurement: whole updates."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    trl: Any = importlib.import_module("trl")
    peft: Any = importlib.import_module("peft")
    datasets: Any = importlib.import_module("datasets")
    torch.manual_seed(0)
    draw, clock = random.Random(0), time.perf_counter_ns
    model = transformers.AutoModelForCausalLM.from_pretrained(options["model"], dtype=torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options["model"])
    turns, tokens, samples = options["turns"], options["tokens"], options["samples"]
    reply = _reply_ids(tokenizer, options["reply"])

    def rollouts(prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        states = [list(ids) for ids in trainer._tokenize_prompts(list(prompts))[0]]
        firsts = [len(state) for state in states]
        masks: list[list[int]] = [[] for _ in states]
        for turn in range(turns):
            written, _ = trainer._generate_single_turn(states, None, {}, samples)
            for state, mask, ids in zip(states, masks, written, strict=True):
                after = reply if turn + 1 < turns else []
                state += [*ids, *after]
                mask += [1] * len(ids) + [0] * len(after)
        return {
            "prompt_ids": [state[:first] for state, first in zip(states, firsts, strict=True)],
            "completion_ids": [state[first:] for state, first in zip(states, firsts, strict=True)],
            "logprobs": None,
            "env_mask": masks,
        }

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.began = 0
            self.times: list[int] = []

        def on_step_begin(self, *args: Any, **unused: Any) -> None:
            self.began = clock()

        def on_step_end(self, *args: Any, **unused: Any) -> None:
            self.times.append(clock() - self.began)

    rows = options["questions"] * samples
    config = trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        max_steps=1,
        per_device_train_batch_size=options["rows"],
        gradient_accumulation_steps=rows // options["rows"],
        num_generations=samples,
        max_completion_length=turns * tokens + (turns - 1) * len(reply) if turns > 1 else tokens,
        generation_kwargs={"min_new_tokens": tokens, "max_new_tokens": tokens},
        gradient_checkpointing=False,
        learning_rate=1e-4,
        logging_steps=1_000,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    texts = [[{"role": "user", "content": text}] for text in options["prompts"]]
    trainer = trl.GRPOTrainer(
        model,
        reward_funcs=lambda completions, **unused: [draw.random() for _ in completions],
        args=config,
        train_dataset=datasets.Dataset.from_dict({"prompt": list(itertools.islice(itertools.cycle(texts), 1_000))}),
        processing_class=tokenizer,
        callbacks=[stopwatch := Clock()],
        peft_config=peft.LoraConfig(r=options["rank"], lora_alpha=2 * options["rank"], target_modules="all-linear"),
        rollout_func=rollouts if turns > 1 else None,
    )

    def update(n: int) -> list[int]:
        stopwatch.times = []
        for _ in range(n):
            trainer.train()
        return stopwatch.times

    return {"update": update}


def _reply_ids(tokenizer: Any, text: str) -> list[int]:
    """Returns the tokens of a message of the environment between two turns of the model."""
    before = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    shown = tokenizer.apply_chat_template(before, tokenize=False)
    messages = [*before, {"role": "user", "content": text}]
    after = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(after[len(shown) :], add_special_tokens=False)["input_ids"]
    return ids
