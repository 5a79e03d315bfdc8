"""Plays the scripted policy through Tinker cookbook's own rollouts with the recipe of a page. Prints JSON."""

import asyncio
import json
import re
import sys
from pathlib import Path

from tinker_cookbook.completers import TokenCompleter, TokensWithLogprobs
from tinker_cookbook.renderers.role_colon import RoleColonRenderer
from tinker_cookbook.rl.message_env import EnvFromMessageEnv
from tinker_cookbook.rl.rollouts import do_single_rollout

from swirl_env import make_agent, make_judge
from swirl_env.env import build_engine
from swirl_env.rollout import collect
from swirl_env.types import SEARCH, ToolCall, Verdict

RULES = make_judge("rules")
(code, _) = re.findall(r"```python\n(.*?)```", Path(sys.argv[1]).read_text(), re.DOTALL)
names = {}
exec(code, names)  # the documentation's own code


def sparing(step):
    """Judges as the rules do, and has no opinion on searches that bring something."""
    (verdict,) = RULES.judge([step])
    return Verdict.unscored() if isinstance(step.call, ToolCall) and step.call.tool == SEARCH and verdict.reward else verdict


class Characters:
    """A tokenizer with one id per character."""

    eos_token_id, bos_token = None, None

    def encode(self, text, add_special_tokens=False):
        return [ord(char) for char in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


class Scripted(TokenCompleter):
    """Writes the given actions, one per call."""

    def __init__(self, actions):
        self.actions = iter(actions)

    async def __call__(self, model_input, stop, *, max_tokens=None):
        ids = TOKENIZER.encode(next(self.actions) + "\n\nUser:")
        return TokensWithLogprobs(ids, [0.0] * len(ids))


TOKENIZER = Characters()


def rollout(engine, own):
    env = names["SwirlMessageEnv"](engine, own.task, own.seed)
    policy = Scripted([step.action.text for step in own.steps])
    return asyncio.run(do_single_rollout(policy, EnvFromMessageEnv(RoleColonRenderer(TOKENIZER), env))).transitions


engine = build_engine("atlas_ledger", judge=sparing)
episodes = list(collect(make_agent("scripted", noise=0.3, seed=3), engine, 8))
theirs = [rollout(engine, own) for own in episodes]
away = build_engine("atlas_ledger", judge=lambda step: Verdict.failed("away"))
try:
    rollout(away, episodes[0])
    failed = ""
except RuntimeError as error:
    failed = str(error)
print(
    json.dumps(
        {
            "ours": [[step.verdict.reward or 0.0 for step in own.steps] for own in episodes],
            "theirs": [[one.reward for one in transitions] for transitions in theirs],
            "missing": [sum(step.verdict.reward is None for step in own.steps) for own in episodes],
            "unscored": [sum(one.metrics["unscored"] for one in transitions) for transitions in theirs],
            "failed": failed,
        }
    )
)
