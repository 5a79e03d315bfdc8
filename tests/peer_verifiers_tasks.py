"""A taskset of verifiers played by our own rollouts, with the rewards that verifiers itself gives; prints JSON.

Run by tests/test_imports_verifiers.py with a Python that has verifiers.
"""

import asyncio
import json
import sys

import verifiers.v1 as vf

from swirl_env import make_tasks
from swirl_env.contract import assert_contract
from swirl_env.env import build_engine
from swirl_env.errors import ConfigError
from swirl_env.interop.verifiers_tasks import trace_of
from swirl_env.rollout import collect
from swirl_env.store import Store


class Sum(vf.TaskData):
    answer: str


class SumTask(vf.Task[Sum]):
    """Right answers are worth 0.75, short ones 0.25."""

    @vf.reward(weight=0.75)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == self.data.answer)

    @vf.reward(weight=0.25)
    async def short(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply) <= 3)

    @vf.metric
    async def length(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply))


class SumsConfig(vf.TasksetConfig):
    size: int = 20


class Sums(vf.Taskset[SumTask, SumsConfig]):
    def load(self):
        for i in range(self.config.size):
            yield SumTask(Sum(prompt=f"What is {i} + {3 * i}?", answer=str(4 * i), id=f"sum-{i}"), self.config.task)


class Endless(Sums):
    INFINITE = True


class InABox(SumTask):
    NEEDS_CONTAINER = True


class Runs(SumTask):
    @vf.reward
    async def run(self, trace: vf.Trace, runtime: vf.Runtime) -> float:
        return 1.0


class Unrewarded(vf.Task[Sum]):
    pass


def of(kind):
    class Some(vf.Taskset[kind, SumsConfig]):
        def load(self):
            yield kind(Sum(prompt="1 + 1?", answer="2"), self.config.task)

    return Some(SumsConfig())


def solver(state):
    if not state.steps:
        return f"<math_exp>{state.task.question.removeprefix('What is ').removesuffix('?')}</math_exp>"
    number = int(state.task.id[-3:])
    answer = state.steps[-1].result.text
    return f"<answer>{f'It is {answer}' if number % 3 == 1 else '1' if number % 3 == 2 else answer}</answer>"


def refusal(**options):
    try:
        make_tasks("verifiers", **options)
    except ConfigError as error:
        return str(error)
    return ""


async def theirs(task, answer):
    trace = trace_of(task, answer)
    await task.score(trace)
    return trace.reward


def main(folder):
    tasks = make_tasks("verifiers", taskset=Sums(SumsConfig(size=30)))
    assert_contract("task", tasks)
    engine = build_engine(tasks, tools=["calculator"], judge="outcome")
    with Store(f"{folder}/run") as store:
        for trajectory in collect(solver, engine, 30):
            store.append(trajectory)
    episodes = list(Store(f"{folder}/run"))
    rewards = {t.task.id: asyncio.run(theirs(tasks.items[tasks.position(t.task.id)], t.outcome.answer)) for t in episodes}
    (silent,) = collect(lambda state: "hm", build_engine(tasks, judge="outcome", max_steps=1), 1)
    by_name = make_tasks("verifiers", taskset="sums_for_tests", config={"size": 4})
    refusals = {
        "endless": refusal(taskset=Endless(SumsConfig())),
        "box": refusal(taskset=of(InABox)),
        "runtime": refusal(taskset=of(Runs)),
        "unrewarded": refusal(taskset=of(Unrewarded)),
        "name": refusal(taskset="no_such_taskset_anywhere"),
        "object": refusal(taskset=3),
    }
    return {
        "correct": {t.task.id: t.outcome.correct for t in episodes},
        "verdicts": {t.task.id: t.steps[-1].verdict.reward for t in episodes},
        "theirs": rewards,
        "silent": silent.outcome.correct,
        "by_name": [by_name[i].question for i in range(len(by_name))],
        "endless": len(make_tasks("verifiers", taskset=Endless(SumsConfig()), limit=5)),
        "refusals": refusals,
    }


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    print(json.dumps(main(sys.argv[1])))
