"""``swirl play``: a person (or any agent, to be watched) solves a task in the terminal and sees the reward of each step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from swirl_env.config.options import PlayOptions, read
from swirl_env.config.overrides import command, command_line_keys, override
from swirl_env.env import find_task
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.terminal import render_verdict
from swirl_env.episodes.transcript import observe
from swirl_env.episodes.transition import Transition
from swirl_env.errors import ConfigError, Interrupted, printable
from swirl_env.protocols import Agent
from swirl_env.registry import make_agent
from swirl_env.seeding import episode_seed
from swirl_env.stages import runs
from swirl_env.stages.engines import engine_for
from swirl_env.stages.playing import count_episodes
from swirl_env.types import Step, Task

_STYLES = {"GOOD": "green", "BAD": "red"}


class Screen:
    """The terminal; knows what it has shown, so that a human agent, which shows what it acts on, does not show it again."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._console.soft_wrap = not self._console.is_terminal  # whole words in a terminal, whole lines elsewhere
        self._seen = ""

    def show(self, text: str, style: str = "") -> None:
        """Shows a text, control characters left out: terminals obey them."""
        text = printable(text)
        if text != self._seen:
            self._console.print(Text(text, style))
        self._seen = ""

    def remember(self, text: str) -> None:
        """Takes note that a text has been shown: if it comes next, it is left out."""
        self._seen = printable(text)


def main(config: DictConfig) -> None:
    """Runs the stage."""
    options = read("play", PlayOptions, config)
    if options.cluster:
        raise ConfigError("`swirl play` plays in the terminal that it is called from; leave cluster= out.")
    if options.out is not None:
        options = runs.settle(options, command_line_keys())
    screen = Screen()
    person = options.agent["name"] == "human"
    engine = engine_for(options.task, options)
    agent = make_agent({**options.agent, **({"show": screen.show} if person else {})})
    with nullcontext() if options.out is None else runs.open_run(options) as store:
        try:
            for task, sample in _episodes(engine, options):
                if store is not None and (task.id, sample) in store:
                    continue
                end = play(engine, agent, task, episode_seed(options.seed, task.id, sample), screen, person)
                if end.ended == "error":
                    screen.show("\ngiven up")
                    break
                if store is not None:
                    store.append(engine.trajectory(end, sample, str(options.agent["name"])))
        except KeyboardInterrupt:
            raise Interrupted("Finished episodes are stored." if store is not None else "") from None
    if store is not None:
        print(f"episodes are in {store.path}\nnext: {command('eval', override('out', str(store.path)))}")


def _episodes(engine: Engine, options: PlayOptions) -> Iterator[tuple[Task, int]]:
    if options.task_id is not None:
        yield from ((find_task(engine.tasks, options.task_id), sample) for sample in range(options.samples))
        return
    for k in range(count_episodes(options, engine.tasks)):
        yield engine.tasks[k // options.samples], k % options.samples


def play(engine: Engine, agent: Agent, task: Task, seed: int, screen: Screen, person: bool) -> Transition:
    """Runs one episode step by step and shows the verdict on each.

    Args:
        engine: runs the steps.
        agent: chooses the actions.
        task: the question.
        seed: the episode's seed.
        screen: where to show.
        person: whether the agent is a person, who knows what they wrote.

    Returns:
        The last transition.
    """
    state = engine.begin(task, seed)
    screen.show(f"task {task.id}", "bold")
    if not person:
        screen.show(state.turns[0].text)
    while True:
        (action,) = agent.act([state])
        (moved,) = engine.step([state], [action])
        if moved.step is not None:
            _show_step(moved.step, len(state.steps) + 1, screen, person)
        if moved.ended is not None:
            _show_end(moved, screen)
            return moved
        state = moved.state


def _show_step(step: Step, number: int, screen: Screen, person: bool) -> None:
    if not person:
        screen.show(f"step {number}: {step.action.text.strip()}")
    reply = step.observation or (observe(step.call, step.result) if step.result is not None else "")
    style = _STYLES.get(step.verdict.label or "", "yellow")
    if reply:
        screen.show(reply)
    screen.show(f"    {render_verdict(step.verdict)}", style)
    screen.remember(step.observation)


def _show_end(end: Transition, screen: Screen) -> None:
    outcome, task = end.outcome, end.state.task
    if end.ended is None or end.ended == "error" or outcome is None:
        return
    how = {"answered": "answered", "budget": "out of actions", "length": "the state grew too long"}[end.ended]
    graded = {True: "correct", False: "wrong", None: "not graded"}[outcome.correct]
    rewards = [step.verdict.reward for step in end.state.steps if step.verdict.reward is not None]
    gold = "" if outcome.correct or task.answer is None else f"; the answer is {task.answer}"
    screen.show(f"{how}, {graded}{gold}. Rewards: {' '.join(f'{reward:g}' for reward in rewards) or 'none'}", "bold")
