"""Updates of this package's `grpo`: rollouts with every step recorded and judged, and one optimizer step."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.algos import credit
from swirl_env.algos.run import Limits, Run
from swirl_env.algos.steps import tabulate
from swirl_env.algos.train_config import TrainConfig
from swirl_env.algos.trainer import Trainer
from swirl_env.env import build_engine
from swirl_env.types import Task


def build(options: dict[str, Any], look_up: Callable[[str], str]) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurement: whole updates."""
    import peft
    import torch

    torch.manual_seed(0)
    draw, clock = random.Random(0), time.perf_counter_ns
    turns, samples = options["turns"], options["samples"]
    tasks = [Task(f"q{i}", text, "1") for i, text in enumerate(options["prompts"])]
    engine = build_engine(tasks, ["calculator"], "rules", turns, prompt="question")
    agent: Any = TransformersAgent(
        options["model"], "bfloat16", max_new_tokens=options["tokens"], batch_size=options["questions"] * samples
    )
    agent.end_ids = frozenset()  # every action has the same length, as on the other side
    lora = peft.LoraConfig(r=options["rank"], lora_alpha=2 * options["rank"], target_modules="all-linear")
    model: Any = peft.get_peft_model(agent.model, lora)
    agent.model = model
    longest = max(len(agent.renderer.ids(engine.begin(task))) for task in tasks) + turns * options["tokens"]
    longest += (turns - 1) * len(agent.renderer.text_ids(options["reply"])) + 16 * turns  # what the chat template adds
    trainer = Trainer(model, TrainConfig(lr=1e-4, micro_tokens=options["rows"] * longest, tree=True))
    run = Run(agent, engine, trainer, Path(tempfile.mkdtemp()), Limits(updates=1_000), keep="none")

    def update(n: int) -> list[int]:
        times = []
        for _ in range(n):
            start = clock()
            table = tabulate(run.rollouts(options["questions"], samples), agent.renderer)
            rewards = [draw.random() for _ in range(options["questions"] * samples)]
            outcome = [rewards[episode] for episode in table.episode]
            advantages = credit.group_normalised(outcome, table.known, table.episode, table.question)
            run.update(table.steps, advantages, table.known)
            times.append(clock() - start)
        return times

    return {"update": update}
