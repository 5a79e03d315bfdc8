"""Plugins that end their own process, for tests of what becomes of the others."""

import os
import signal
from pathlib import Path

from swirl_env.agents.scripted import ScriptedAgent
from swirl_env.errors import ConfigError
from swirl_env.judges.rules import RulesJudge
from swirl_env.types import Verdict


class Mortal:
    """The scripted agent; its process dies at the first state whose task is named, once, or always without a flag.

    Args:
        task: end of the task's id.
        flag: file that notes the death; empty for a death each time.
    """

    def __init__(self, task: str, flag: str = "") -> None:
        self.task, self.flag = task, flag
        self.agent = ScriptedAgent(noise=0.2)

    def act(self, states):
        if any(state.task.id.endswith(self.task) for state in states):
            if not self.flag:
                os.kill(os.getpid(), signal.SIGKILL)
            if not Path(self.flag).exists():
                Path(self.flag).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.agent.act(states)


def only_here() -> ScriptedAgent:
    """An agent that can be built in one process alone."""
    if os.getpid() != int(os.environ["SWIRL_TEST_PID"]):
        raise ConfigError("There is no GPU here. Set agent.device=cpu.")
    return ScriptedAgent()


class Forgetful(RulesJudge):
    """The rules; fails at calls while a file is there."""

    def __init__(self, file: str) -> None:
        self.file = file
        super().__init__()

    def judge(self, steps):
        verdicts = super().judge(steps)
        if not Path(self.file).exists():
            return verdicts
        return [Verdict.failed("away") if len(s.state.steps) == 1 else v for s, v in zip(steps, verdicts, strict=True)]
