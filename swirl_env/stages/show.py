"""``swirl show DIR TASK_ID [SAMPLE]``: one stored episode in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swirl_env.config.overrides import command, override
from swirl_env.config.plain_arguments import parse
from swirl_env.episodes.terminal import render_state
from swirl_env.episodes.transcript import initial_state, next_state
from swirl_env.errors import ConfigError, StoreError, unknown_name
from swirl_env.stages import folders, runs
from swirl_env.store import Store
from swirl_env.types import Trajectory

_OTHERS = ("outcome", "rules")
"""Judges that need no model."""

USAGE = """\
usage: swirl show DIR TASK_ID [SAMPLE] [verdicts=JUDGE]

Prints an episode of a run: the prompt, each action with its result, reward and critique, and the outcome.

  verdicts=JUDGE   name or fingerprint of the judge whose verdicts are shown; by default those of the episode"""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    words, options = parse(argv, {"verdicts": str})
    if words is None:
        print(USAGE)
        return 0
    if len(words) not in (2, 3) or not (len(words) == 2 or words[2].isdecimal()):
        raise ConfigError("Expected a run folder, a task id and perhaps a sample number: swirl show DIR TASK_ID [SAMPLE].")
    path = folders.one_with_episodes(Path(words[0]))
    store = Store(path, "r")
    print(render(_find(store, words[1], int(words[2]) if len(words) == 3 else None, options.get("verdicts"))))
    print(f"\nnext: {_next(store)}")
    return 0


def _next(store: Store) -> str:
    """Returns the commands that ask a judge that has not judged the run, or compare those that have."""
    judged = {table.rpartition("-")[0] for table in store.judges()}
    other = next((judge for judge in _OTHERS if judge not in judged), None)
    compare = f"{command('report', store.path)}   to compare judges"
    if other is None:
        return compare
    return f"{command('judge', override('out', str(store.path)), f'judge={other}')}   or   {compare}"


def _find(store: Store, task_id: str, sample: int | None, verdicts: str | None) -> Trajectory:
    """Returns the first episode on a task, or the one of a sample.

    Raises:
        UnknownName: the run holds none.
    """
    ids: dict[str, list[int]] = {}
    for trajectory in store.with_verdicts(runs.table_of(store, verdicts)):
        if trajectory.task.id == task_id and sample in (None, trajectory.sample):
            return trajectory
        ids.setdefault(trajectory.task.id, []).append(trajectory.sample)
    if task_id in ids:
        raise StoreError(f"{store.path} holds no sample {sample} of {task_id!r}; it holds {', '.join(map(str, ids[task_id]))}.")
    raise unknown_name(f"task in {store.path}", task_id, ids)


def render(trajectory: Trajectory) -> str:
    """Returns an episode as text for a terminal."""
    state = initial_state(trajectory.task, trajectory.prompt, trajectory.settings)
    for step in trajectory.steps:
        state = next_state(state, step)
    outcome = trajectory.outcome
    grade = {True: "right", False: "wrong", None: "not graded"}[outcome.correct]
    answer = "no answer" if outcome.answer is None else f"answer {outcome.answer!r}"
    gold = "no gold answer" if trajectory.task.answer is None else f"gold {trajectory.task.answer!r}"
    return f"{render_state(state)}\n\nended: {trajectory.ended}, {answer}, {gold}: {grade}"
