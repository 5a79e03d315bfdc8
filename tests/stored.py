"""Small episodes, and run folders that hold them."""

from pathlib import Path

from swirl_env.store import Store
from swirl_env.types import Action, Answer, Outcome, Settings, Step, Task, ToolCall, ToolResult, Trajectory, Verdict

SETTINGS = Settings(("search_query",), 5)


def episode(task="q0", sample=0, *, ended="answered", correct=True, labels=("GOOD", "GOOD"), seed=0):
    """A small episode: one search per label, the last one the answer."""
    steps = []
    for i, label in enumerate(labels):
        verdict = Verdict("scored", float(label == "GOOD"), label) if label in ("GOOD", "BAD") else Verdict(label)
        if i == len(labels) - 1:
            steps.append(Step(Action("<answer>Oslo</answer>"), Answer("Oslo", 0, 21), None, "", verdict))
        else:
            result = ToolResult(f"Oslo is a city, says {task}.", None, {"ids": ["p1"], "scores": [1.5]})
            call = ToolCall("search_query", "Oslo", 0, 33)
            observation = f"Oslo -> {result.text}"
            steps.append(Step(Action("<search_query>Oslo</search_query>"), call, result, observation, verdict))
    outcome = Outcome("Oslo", correct, float(bool(correct))) if ended == "answered" else Outcome()
    return Trajectory(Task(task, "Where?", "Oslo"), SETTINGS, "Where?", tuple(steps), ended, outcome, sample, seed, "me")


def fill(path, count):
    with Store(path) as store:
        for i in range(count):
            store.append(episode(f"q{i}"))
    return path


def shard(path, number=0):
    return Path(path) / "trajectories" / f"{number:05d}.jsonl"
