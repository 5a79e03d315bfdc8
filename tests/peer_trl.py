"""TRL's own trainer on the exported AtlasLedger with a scripted model, and our update; or the code of docs/trl.md. Prints JSON.

Run by tests/test_interop_trl_update.py with a Python that has TRL.
"""

import copy
import json
import re
import sys
import warnings
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig

from swirl_env import make_agent, make_judge
from swirl_env.algos import credit
from swirl_env.algos.batch import TokenStep
from swirl_env.algos.train_config import TrainConfig
from swirl_env.algos.trainer import Trainer
from swirl_env.env import build_engine
from swirl_env.interop.trl import StepGRPOTrainer, make_environments, rows
from swirl_env.rollout import collect
from swirl_env.store import Store
from swirl_env.types import Answer, ToolCall, Verdict

OPTIONS = {"size": 8, "max_steps": 6, "format": "native"}


class SometimesAway:
    """The rules judge, which fails on about a fifth of the calls: such steps leave loss and baselines."""

    def __init__(self):
        self.rules = make_judge("rules")

    def judge(self, steps):
        pairs = zip(steps, self.rules.judge(steps), strict=True)
        return [Verdict.failed("away") if away(step.call) else verdict for step, verdict in pairs]


def away(call):
    return isinstance(call, ToolCall) and sum(map(ord, call.query)) % 5 == 0


def tokenizer(texts):
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    inner.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<tool_call>", "</tool_call>")])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = (resources.files("trl") / "chat_templates" / "qwen3.jinja").read_text()
    return made


class ScriptedTrainer(StepGRPOTrainer):
    """TRL's trainer with a scripted agent in the place of generation; all else is TRL's."""

    agent = make_agent("scripted", noise=0.3)

    def _generate_single_turn(self, prompt_ids, *_args, **_options):
        if len(prompt_ids) == len(self.environments):  # the first turn is that of all rollouts
            self.going = list(range(len(prompt_ids)))
        texts = [self.turn(number) for number in self.going]
        self.going = [number for number, text in zip(self.going, texts, strict=True) if "</tool_call>" in text]
        tokens = self.processing_class([f"{text}<|im_end|>" for text in texts], add_special_tokens=False)
        return tokens["input_ids"], None

    def turn(self, number):
        environment = self.environments[number]
        if environment._end is not None:
            return "Done."
        text = self.agent.act([environment._state])[0].text
        call = environment._engine.format.parse(text)
        if isinstance(call, Answer) and number % 2:  # half of the rollouts answer in tags, the others by the function
            arguments = json.dumps({"name": "answer", "arguments": {"answer": call.text}})
            return f"{text[: call.start]}<tool_call>\n{arguments}\n</tool_call>"
        return text


class KeepGradients(TrainerCallback):
    def __init__(self):
        self.gradients = {}

    def on_pre_optimizer_step(self, args, state, control, **named):
        self.gradients = {name: weight.grad.clone() for name, weight in named["model"].named_parameters()}


def our_gradient(model, trajectories):
    """The gradient of our trainer on the same tokens, with advantages computed here from the trajectories alone."""
    flat = [(e, k, step) for e, trajectory in enumerate(trajectories) for k, step in enumerate(trajectory.steps)]
    episode, position = (np.array([entry[i] for entry in flat]) for i in (0, 1))
    reward = np.array([np.nan if step.verdict.reward is None else step.verdict.reward for _, _, step in flat])
    outcome = np.array([float(trajectories[e].outcome.correct) for e in episode])
    question = np.array([hash(trajectories[e].task.id) for e in episode])
    known = np.ones(len(flat), bool)
    advantages, valid = credit.mt_grpo_unbiased(reward, np.isfinite(reward), outcome, known, episode, position, question)
    steps = [TokenStep(step.action.prompt_ids, step.action.token_ids, (), e) for e, _, step in flat]
    trainer = Trainer(model, TrainConfig(lr=1e-3))
    gradients, clip = {}, trainer._clip

    def keep():
        gradients.update({name: weight.grad.clone() for name, weight in model.named_parameters()})
        return clip()

    trainer._clip = keep
    trainer.update(steps, advantages, valid)
    return gradients, int(valid.sum()), len(flat)


def tiny(environments):
    """A Llama of random weights, and a tokenizer that writes the prompts of the environments in few tokens."""
    probe = environments()
    texts = [probe.reset(**row) for row in rows(environments)] + [json.dumps({"role": "tool", "arguments": {"query": ""}})] * 20
    environments._samples.clear()
    made = tokenizer(texts)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(made), max_position_embeddings=16384, num_key_value_heads=2, **shape)
    return LlamaForCausalLM(config), made


ON_TWO_CORES = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [], "save_strategy": "no"}


def update(folder):
    """One update of TRL's, and ours on the same tokens."""
    environments = make_environments("atlas_ledger", judge=SometimesAway(), **OPTIONS)
    model, made = tiny(environments)
    first, keeper = copy.deepcopy(model), KeepGradients()
    config = GRPOConfig(
        output_dir=folder, per_device_train_batch_size=4, gradient_accumulation_steps=2, num_generations=2, max_steps=1,
        max_completion_length=8000, learning_rate=1e-3, max_grad_norm=0.0, disable_tqdm=True, shuffle_dataset=False,
        **ON_TWO_CORES,
    )  # fmt: skip
    trainer = ScriptedTrainer(
        model=model, processing_class=made, args=config, train_dataset=Dataset.from_list(rows(environments)),
        environment_factory=environments, callbacks=[keeper], credit="mt_grpo_unbiased",
    )  # fmt: skip
    trainer.train()
    engine = build_engine("atlas_ledger", judge=SometimesAway(), **OPTIONS)
    ours = {trajectory.key: trajectory for trajectory in collect(trainer.agent, engine, 16, samples=2)}
    gradients, valid, steps = our_gradient(first, trainer.trajectories)
    wanted = torch.cat([gradients[name].flatten() for name in sorted(gradients)])
    got = torch.cat([keeper.gradients[name].flatten() for name in sorted(gradients)])
    error = ((got - wanted).norm() / wanted.norm()).item()
    logged = {key: value for entry in trainer.state.log_history for key, value in entry.items()}
    episodes = [compared(theirs, ours[theirs.key]) for theirs in trainer.trajectories]
    return {
        "episodes": episodes, "error": error, "norm": wanted.norm().item(), "valid": valid, "steps": steps, "logged": logged
    }  # fmt: skip


def compared(theirs, ours):
    pairs = zip(theirs.steps, ours.steps, strict=False)
    return {
        "ended": theirs.ended,
        "rewards": [step.verdict.reward for step in theirs.steps],
        "ours": [step.verdict.reward for step in ours.steps],
        "kinds": [type(step.call).__name__ for step in theirs.steps],
        "seen": [step.observation == own.observation for step, own in pairs],
        "owned": all(step.action.token_ids for step in theirs.steps),
    }


def page(folder):
    """Runs the code of docs/trl.md, with a tiny model that generates by itself and the rule of the page."""
    text = (Path(__file__).resolve().parent.parent / "docs" / "trl.md").read_text()
    whole, rule = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    swaps = {
        'model="Qwen/Qwen3-0.6B",': "model=MODEL, processing_class=TOKENIZER,",
        '"runs/trl"': "FOLDER",
        "num_generations=8": "num_generations=2, **CPU",
        "max_completion_length=2048": "max_completion_length=24",
        "max_steps=100": "max_steps=1",
        "512": "4",
        '"mt_grpo_unbiased"': "same_place",
    }
    for old, new in swaps.items():
        assert whole.count(old) == 1, old
        whole = whole.replace(old, new)
    model, made = tiny(make_environments("atlas_ledger", size=8))
    names = {"MODEL": model, "TOKENIZER": made, "FOLDER": folder, "CPU": ON_TWO_CORES}
    exec(rule, names)
    exec(whole, names)
    trainer = names["trainer"]
    with Store(f"{folder}/episodes") as store:
        for trajectory in trainer.trajectories:
            store.append(trajectory)
    stored = [step for trajectory in Store(f"{folder}/episodes") for step in trajectory.steps]
    return {
        "steps": len(stored),
        "tokens": sum(len(step.action.token_ids) for step in stored),
        "updates": trainer.state.global_step,
    }


def export(folder):
    """Trains a tiny model by the package that ``swirl new-export trl my_env`` wrote into the folder."""
    model, made = tiny(make_environments("atlas_ledger", size=8))
    model.save_pretrained(f"{folder}/model")
    made.save_pretrained(f"{folder}/model")
    sys.path.insert(0, f"{folder}/my_env")
    from my_env.train import make_trainer

    trainer = make_trainer(
        f"{folder}/model", output_dir=folder, num_generations=2, max_completion_length=24, max_steps=1, **ON_TWO_CORES
    )
    trainer.train()
    kinds = sorted({type(step.call).__name__ for trajectory in trainer.trajectories for step in trajectory.steps})
    return {"updates": trainer.state.global_step, "kinds": kinds, "rewards": trainer.reward_func_names}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    print(json.dumps({"update": update, "page": page, "export": export}[sys.argv[1]](sys.argv[2])))
