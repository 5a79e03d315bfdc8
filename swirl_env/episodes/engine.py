"""The one transition behind the environment, the vector environment and rollouts: parse, call tools, judge, advance.

A step of n episodes makes one call to each tool that they use and one to the judge.
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from swirl_env.arguments import read_arguments, schema_of
from swirl_env.episodes.failures import Failures
from swirl_env.episodes.guarded import run_grader, run_judge, run_tool
from swirl_env.episodes.prompts import Prompt, PromptFunction, make_prompt
from swirl_env.episodes.sessions import Call, SessionTable, stateful
from swirl_env.episodes.toolset import functions_text, make_tools, schema_text
from swirl_env.episodes.transcript import clean, initial_state, next_state, observe
from swirl_env.episodes.transition import Transition, ended_by, no_answer, record
from swirl_env.episodes.values import checked_action, checked_task, is_plain_action
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.grading import grade
from swirl_env.protocols import BringsGrader, Grader, Judge, TaskSource, is_pure
from swirl_env.registry import Spec, conforming, make, make_format, make_grader
from swirl_env.texts import Text
from swirl_env.types import (
    Action,
    Answer,
    History,
    Malformed,
    Outcome,
    ParsedAction,
    Settings,
    State,
    Step,
    SubTrajectory,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Verdict,
)

Batches = dict[str, tuple[list[int], list[Any]]]
"""Tag of a tool -> its calls: their positions, and the query or arguments of each."""


class Engine:
    """Runs episodes over one set of tasks, tools and a judge.

    Args:
        tasks: the questions; their corpus is offered to every tool that takes one.
        tools: specs of the tools; None takes what the task source names.
        judge: spec of the judge, or None for no rewards (every verdict ``unscored``).
        max_steps: the most actions per episode, the answer included; None takes the task source's.
        format: name of the action format.
        history: whether later states keep earlier reasoning (``full``) or only the calls (``calls``).
        prompt: ``full`` instructions, the bare ``question``, or your own (see `swirl_env.episodes.prompts.make_prompt`).
        instructions: text for the beginning of the prompt; or a file or a name (see `swirl_env.texts`).
        examples: worked examples for the place before the question, likewise.
        max_chars: longest state in characters; an episode that outgrows it is truncated with ``ended="length"``.
        grader: spec of what judges final answers in place of the task's own grading; or a function of a task and an answer.
    """

    def __init__(
        self,
        tasks: TaskSource,
        tools: Sequence[Spec] | None = None,
        judge: Spec | None = "rules",
        max_steps: int | None = None,
        *,
        format: str = "xml",
        history: History = "full",
        prompt: Prompt | PromptFunction = "full",
        instructions: Text = "",
        examples: Text = "",
        max_chars: int = 100_000,
        grader: Spec | Callable[[Task, str], bool | None] | None = None,
    ) -> None:
        tasks = conforming("task", tasks)
        self.tasks = tasks
        self.tools = make_tools(tasks.tools if tools is None else tools, tasks)
        self.judge: Judge | None = None if judge is None else conforming("judge", make("judge", judge))
        self._pure = self.judge is not None and is_pure(self.judge)
        steps = _count("max_steps", tasks.max_steps if max_steps is None else max_steps)
        max_chars = _count("max_chars", max_chars)
        if history not in get_args(History):
            raise unknown_name("history", str(history), get_args(History))
        if not isinstance(format, str):
            raise ConfigError(f"format is the name of an action format or 'package.module:Attr'; got {format!r:.60}.")
        self._sessions = SessionTable(stateful(self.tools))
        self._typed = {tag: schema for tag, tool in self.tools.items() if (schema := schema_of(tool)) is not None}
        schemas = tuple((tag, schema_text(tag, schema)) for tag, schema in self._typed.items())
        self.format = make_format(format, tuple(self.tools), schemas)
        functions = functions_text(self.format, list(self.tools.values()))
        self.settings = Settings(tuple(self.tools), steps, format, history, max_chars, functions)
        self.prompt = make_prompt(prompt, instructions, examples)
        self._own_grader: Grader | None = None if grader is None else make_grader(grader)
        self.grader = self._own_grader or _grader_of(tasks)
        self._failures = {tag: Failures(f"the tool {tag!r}", tool) for tag, tool in self.tools.items()}
        self._judge_failures = Failures(f"the judge {type(self.judge).__name__}", self.judge)
        self._grader_failures = Failures(f"the grader {type(self.grader).__name__}", self.grader)

    def with_tasks(self, tasks: TaskSource) -> Engine:
        """Returns an engine with other questions and the same tools, judge and settings."""
        clone = copy.copy(self)
        clone.tasks, clone.grader = tasks, self._own_grader or _grader_of(tasks)
        return clone

    def without_judge(self) -> Engine:
        """Returns an engine with the same questions, tools and settings whose steps are not judged."""
        clone = copy.copy(self)
        clone.judge, clone._pure = None, False
        return clone

    def begin(self, task: Task, seed: int = 0) -> State:
        """Returns the first state of an episode on `task`."""
        task = checked_task(task)
        prompt = self.prompt.write(task, list(self.tools.values()), self.format, self.settings)
        if len(prompt) > self.settings.max_chars:
            raise ConfigError(
                f"The prompt of task {task.id!r} has {len(prompt)} characters; max_chars allows {self.settings.max_chars}."
            )
        return initial_state(task, clean(prompt), self.settings, seed)

    def step(self, states: Sequence[State], actions: Sequence[Action]) -> list[Transition]:
        """Takes one step in each of n episodes.

        Args:
            states: n current states.
            actions: n actions, one per state.

        Returns:
            n transitions, exactly those that n single calls would give.
        """
        for action in actions:
            if action.error is not None:
                return self._step_without_some(states, actions)
        if not self._sessions.tools:
            tried = self._try(states, actions)
            return list(map(self._advance, tried, self._judge(tried)))
        moved: dict[int, int] = {}
        tried = self._try(states, actions, moved=moved)
        return self._settled(states, list(map(self._advance, tried, self._judge(tried))), moved)

    def run_calls(self, states: Sequence[State], actions: Sequence[Action]) -> list[SubTrajectory]:
        """Reads actions and runs their calls, for tool servers of other frameworks; nothing is judged and no episode moves on.

        Sessions of tools stay as they are.
        """
        return self._try(states, actions)

    def step_with(
        self, states: Sequence[State], actions: Sequence[Action], results: Sequence[ToolResult | None]
    ) -> list[Transition]:
        """Takes a step in each of n episodes whose calls were run elsewhere, by a tool server of another framework.

        Args:
            states: n current states.
            actions: n actions, one per state.
            results: what each call gave; None for an action without a call, and for a call that was never run: such a step is
                not judged.

        Returns:
            n transitions; those of `step` if the results are those that the tools give.
        """
        tried = [
            msgspec.structs.replace(one, result=result) if type(one.call) is ToolCall else one
            for one, result in zip(self._try(states, actions, tools=False), results, strict=True)
        ]
        verdicts = iter(self._judge([one for one in tried if not _never_run(one)]))
        unscored = Verdict.unscored("This call was never run.")
        return [self._advance(one, unscored if _never_run(one) else next(verdicts)) for one in tried]

    def _step_without_some(self, states: Sequence[State], actions: Sequence[Action]) -> list[Transition]:
        """Takes a step in the episodes whose agent could act, and ends the others."""
        live = [i for i, action in enumerate(actions) if action.error is None]
        self.abandon([states[i] for i in range(len(states)) if actions[i].error is not None])
        taken = dict(zip(live, self.step([states[i] for i in live], [actions[i] for i in live]), strict=True))
        return [taken.get(i) or self._unable(states[i], action) for i, action in enumerate(actions)]

    def fork(self, states: Sequence[State]) -> list[State]:
        """Returns states from which episodes can go on apart from the ones at hand: sessions of tools are forked.

        Raises:
            ConfigError: if a session cannot be forked.
        """
        return [msgspec.structs.replace(state, sessions=self._sessions.fork(state)) for state in states]

    def check_sessions(self, states: Iterable[State]) -> None:
        """Refuses states that `fork` would refuse, or in which a tool with state could not go on.

        Raises:
            ConfigError: if a session has moved on, was closed, belongs to an episode that was played elsewhere, or has no fork.
        """
        for state in states:
            self._sessions.check_forking(state)

    def raise_permanent(self) -> None:
        """Stops a run of many episodes if a plugin has failed everywhere (see `swirl_env.episodes.failures`).

        Raises:
            PluginError: with the plugin's own error.
        """
        for failures in (*self._failures.values(), self._judge_failures, self._grader_failures):
            if (error := failures.permanent) is not None:
                failures.clear()
                raise error

    def abandon(self, states: Iterable[State]) -> None:
        """Closes the sessions of episodes that will not go on; those that end are closed by themselves."""
        for state in states:
            if state.sessions:
                self._sessions.close(state.sessions)

    def _settled(self, states: Sequence[State], transitions: Sequence[Transition], moved: Mapping[int, int]) -> list[Transition]:
        """Returns the transitions with the sessions that their states have now; those of ended episodes are closed."""
        settled, ended = [], set()
        for i, (state, transition) in enumerate(zip(states, transitions, strict=True)):
            number = moved.get(i, state.sessions)
            if transition.ended is not None:
                ended.add(number)
            elif number != transition.state.sessions:
                after = msgspec.structs.replace(transition.state, sessions=number)
                transition = Transition(after, transition.step)
            settled.append(transition)
        for number in ended - {transition.state.sessions for transition in settled if transition.ended is None}:
            self._sessions.close(number)
        return settled

    def rate(self, states: Sequence[State], actions: Sequence[Action], *, tools: bool = True) -> list[Step]:
        """Judges actions at frozen states; no episode moves on (SWiRL, stage 2).

        Args:
            states: n states.
            actions: n actions, one per state.
            tools: whether calls are run, for judges that rate a call by its result (see `RatesResults`); the paper runs none.

        Returns:
            n steps with their verdicts and without observations.

        Raises:
            PluginError: if a tool or the judge has failed everywhere (see `raise_permanent`).
        """
        tried = self._try(states, actions, tools=tools)
        verdicts = self._judge(tried)
        self.raise_permanent()
        return [Step(s.action, s.call, s.result, "", v) for s, v in zip(tried, verdicts, strict=True)]

    def _try(
        self, states: Sequence[State], actions: Sequence[Action], *, tools: bool = True, moved: dict[int, int] | None = None
    ) -> list[SubTrajectory]:
        """Reads actions, runs their calls and grades their answers.

        Args:
            states: n states.
            actions: n actions, one per state.
            tools: whether calls are run.
            moved: filled with the numbers of the sessions after a call, by position; None leaves sessions as they are.
        """
        parse, typed = self.format.parse, self._typed
        acted: list[Action] = []
        calls: list[ParsedAction] = []
        batches: Batches = {}
        answers: list[int] = []
        for i, action in enumerate(actions):
            if not is_plain_action(action):
                action = _usable(action)
            text = action.text
            call = parse(text, True) if action.opened else parse(text)
            kind = type(call)
            if kind is ToolCall:
                query: Any = call.query  # type: ignore[union-attr]  # as was just seen
                if typed and call.tool in typed:  # type: ignore[union-attr]
                    query = read_arguments(typed[call.tool], query)  # type: ignore[union-attr]
                    if type(query) is str:
                        call = Malformed(query, call.start, call.end)
                if type(call) is ToolCall:
                    if (batch := batches.get(call.tool)) is None:
                        batches[call.tool] = [i], [query]
                    else:
                        batch[0].append(i)
                        batch[1].append(query)
            elif kind is Answer:
                answers.append(i)
            acted.append(action)
            calls.append(call)
        results: list[ToolResult | None] = [None] * len(calls)
        outcomes: list[Outcome | None] = [None] * len(calls)
        if batches and tools:
            self._run_tools(states, batches, results, outcomes, moved)
        if answers:
            self._grade(states, calls, answers, outcomes)
        if len(acted) == 1:  # `map` over five lists takes three times as long for a single one
            return [SubTrajectory(states[0], acted[0], calls[0], results[0], outcomes[0])]
        return list(map(SubTrajectory, states, acted, calls, results, outcomes))

    def _run_tools(
        self,
        states: Sequence[State],
        batches: Batches,
        results: list[ToolResult | None],
        outcomes: list[Outcome | None],
        moved: dict[int, int] | None,
    ) -> None:
        """Fills in the result of each call, with one batch per tool, and the outcome of each that ends its episode.

        `moved` is that of `_try`.
        """
        in_sessions: list[tuple[int, Call]] = []
        for tag, (positions, queries) in batches.items():
            if tag in self._sessions.tools:
                in_sessions += [(i, (states[i], tag, query)) for i, query in zip(positions, queries, strict=True)]
                continue
            own = run_tool(self.tools[tag], queries, self._failures[tag])
            if len(own) == len(results):  # all episodes call this tool
                results[:] = own
                continue
            for i, result in zip(positions, own, strict=True):
                results[i] = result
        if in_sessions:
            in_sessions.sort(key=lambda item: item[0])
            own, numbers, ends = self._sessions.run([call for _, call in in_sessions], frozen=moved is None)
            for (i, _), result, number, outcome in zip(in_sessions, own, numbers, ends, strict=True):
                results[i], outcomes[i] = result, outcome
                if moved is not None:
                    moved[i] = number

    def _judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        if self.judge is None or not steps:
            return [Verdict("unscored")] * len(steps)
        return run_judge(self.judge, steps, self._pure, self._judge_failures)

    def _grade(
        self, states: Sequence[State], calls: Sequence[ParsedAction], answers: Sequence[int], outcomes: list[Outcome | None]
    ) -> None:
        """Fills in the outcome of each action that answers, by position; judges see the same grade."""
        tasks, texts = [states[i].task for i in answers], [calls[i].text for i in answers]  # type: ignore[union-attr]
        graded = list(map(grade, tasks, texts))
        if self.grader is not None:
            grades = run_grader(self.grader, tasks, texts, self._grader_failures)
            graded = [Outcome(own.answer, correct, own.f1) for own, correct in zip(graded, grades, strict=True)]
        for i, outcome in zip(answers, graded, strict=True):
            outcomes[i] = outcome

    def _advance(self, tried: SubTrajectory, verdict: Verdict) -> Transition:
        """Returns s_{i+1}, or the end of the episode: answered, out of steps, or grown too long."""
        state = tried.state
        settings = state.settings
        if tried.outcome is not None:
            return ended_by(tried, verdict, "answered", tried.outcome)
        if len(state.steps) + 1 >= settings.max_steps:
            return ended_by(tried, verdict, "budget", self.unanswered(state.task))
        call, result = tried.call, tried.result
        correction = self.format.correction(call) if type(call) is Malformed else ""
        step = Step(tried.action, call, result, observe(call, result, correction), verdict)
        after = next_state(state, step)
        if after.chars > settings.max_chars:
            return ended_by(tried, verdict, "length", self.unanswered(state.task))
        return Transition(after, step)

    def unanswered(self, task: Task) -> Outcome:
        """Returns the outcome of an episode that ended without an answer; a grader that the tasks bring sees an empty one."""
        if task.answer is not None or self._own_grader is not None or self.grader is None:
            return no_answer(task)
        return Outcome(None, run_grader(self.grader, [task], [""])[0], None)

    def _unable(self, state: State, action: Action) -> Transition:
        """Returns the end of an episode whose agent could not act: a too long state truncates, a failure is an error."""
        if action.error == "length":
            return Transition(state, None, "length", self.unanswered(state.task))
        return Transition(state, None, "error", Outcome())

    def trajectory(self, end: Transition, sample: int = 0, agent: str = "") -> Trajectory:
        """Returns the record of a finished episode, see `swirl_env.episodes.transition.record`."""
        return record(end, sample, agent)


def _grader_of(tasks: TaskSource) -> Grader | None:
    """Returns the grader that a task source brings along; None if its tasks' own grading decides."""
    return tasks.grader if isinstance(tasks, BringsGrader) else None


def _never_run(step: SubTrajectory) -> bool:
    return step.result is None and type(step.call) is ToolCall


def _count(name: str, value: object) -> int:
    """Returns a whole number of at least 1, also one of NumPy.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1:
        return int(value)
    what = "the actions of an episode" if name == "max_steps" else "the characters of a state"
    raise ConfigError(f"{name} counts {what} and must be a whole number of at least 1; got {value!r:.60}.")


def _usable(action: Action) -> Action:
    """Returns an action with values that can be stored.

    Raises:
        ConfigError: if it has values that make no sense.
    """
    try:
        return checked_action(action)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"This action cannot be used: {error}.") from error
