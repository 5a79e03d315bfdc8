"""The datasets of reasoning-gym as tasks, graded by their own scorers: ``task=reasoning_gym task.dataset=chain_sum``."""

from __future__ import annotations

import dataclasses
import math
import random
import types
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from reasoning_gym.factory import (  # pyright: ignore[reportMissingImports] -- installed where this module is used
    DATASETS,
    create_dataset,
)

from swirl_env.errors import ConfigError, PluginError, printable, unknown_name
from swirl_env.tasks.generated import GeneratedTasks, check_whole
from swirl_env.tasks.names import Split
from swirl_env.types import Task

VERSION = 1
"""To be raised whenever the same options give other tasks."""
MAX_ANSWER = 20_000
"""Longest answer that a scorer gets to see, in characters; a longer one is wrong."""
_FULL = 1.0
"""The score of a right answer; scorers give less for answers that come close."""
_EVALUATING = frozenset({"eval", "exec", "__import__", "parse_expr", "sympify", "parse_latex"})
"""Names by which Python code runs text as code, or SymPy does."""
_OWN_TEXT = frozenset({"bitwise_arithmetic", "number_sorting"})
"""Datasets whose scorers run nothing but their own questions and references."""


class ReasoningGym(GeneratedTasks):
    """Questions of a dataset of reasoning-gym, unlimited and seeded.

    An answer is right if the dataset's own scorer gives it the full score. Scorers that run the answer as code (``eval``, SymPy's
    ``parse_expr``) are refused: answers come from a model.

    Args:
        dataset: name of the dataset, e.g. ``chain_sum``.
        split: ``train``, ``validation`` or ``test``: other seeds.
        size: how many questions there are.
        seed: which questions.
        scorer: whether the dataset's scorer grades; False compares with the reference answer instead.
        max_steps: the most actions per episode.
        **options: options of the dataset, e.g. ``max_terms=3``.

    Raises:
        UnknownName: for an unknown dataset or option.
        ConfigError: for values that the dataset refuses, or a scorer that runs answers as code.
    """

    tools = ("calculator",)

    def __init__(
        self,
        dataset: str,
        split: Split = "train",
        size: int = 1_000,
        seed: int = 0,
        scorer: bool = True,
        max_steps: int = 6,
        **options: Any,
    ) -> None:
        check_whole(seed=seed, size=size, max_steps=max_steps)
        self.max_steps = max_steps
        shape = {"dataset": dataset, "seed": seed, **options}
        super().__init__("reasoning-gym", VERSION, size, split, shape, {})
        self._dataset = _make_dataset(dataset, {**options, "size": size, "seed": self._key % 2**31})
        self.dataset = dataset
        if scorer and dataset not in _OWN_TEXT and (reason := code_in_scorer(self._dataset)):
            raise ConfigError(
                f"The scorer of the dataset {dataset!r} runs the answer as code ({reason}), which is never done here with "
                f"what a model wrote. Set task.scorer=false to compare with the reference answer instead."
            )
        self.grader = Scorer(self) if scorer else None
        self.entry = lru_cache(maxsize=1_024)(self._dataset.__getitem__)

    def draw(self, rng: random.Random, task_id: str) -> Task:
        """Returns the task of an id; the dataset draws from a seed of its own."""
        index = self.index_of(task_id)
        entry = self.entry(index)
        answer = entry["answer"]
        meta = {"dataset": self.dataset, "split": self.split, "metadata": _plain(entry.get("metadata", {}))}
        return Task(task_id, str(entry["question"]), None if answer is None else str(answer), meta=meta)

    def index_of(self, task_id: str) -> int:
        """Returns the place of a task of this source."""
        return int(task_id.removeprefix(self._prefix))

    def score(self, task_id: str, answer: str) -> float:
        """Returns the score of an answer by the dataset's own scorer, from 0 to 1.

        Raises:
            Exception: whatever the scorer raises.
        """
        entry = self.entry(self.index_of(task_id))
        return float(self._dataset.score_answer(answer=answer, entry=entry))


class Scorer:
    """Grades answers by the scorer of a dataset: right with the full score.

    Args:
        tasks: where the tasks come from.
    """

    def __init__(self, tasks: ReasoningGym) -> None:
        self._tasks = tasks

    def grade(self, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
        """Returns whether each answer is right; None for a task of another source."""
        return [self._one(task, answer) for task, answer in zip(tasks, answers, strict=True)]

    def _one(self, task: Task, answer: str) -> bool | None:
        if self._tasks.find(task.id) is None:
            return None
        if len(answer) > MAX_ANSWER:
            return False
        try:
            return self._tasks.score(task.id, answer) >= _FULL
        except Exception as error:
            # An answer that the scorer cannot take is wrong, if it can take the reference; else the scorer is broken.
            reference = self._tasks.entry(self._tasks.index_of(task.id))["answer"]
            try:
                self._tasks.score(task.id, reference)
            except Exception as broken:
                raise broken from error
            return False


def _make_dataset(name: str, options: dict[str, Any]) -> Any:
    if name not in DATASETS:
        raise unknown_name("dataset of reasoning-gym", str(name), DATASETS)
    known = {field.name for field in dataclasses.fields(DATASETS[name][1])}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of the dataset {name!r}", option, known - {"size", "seed"})
    try:
        return create_dataset(name, **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"The dataset {name!r} refuses these options: {printable(str(error)[:300]) or 'no reason'}.") from error
    except Exception as error:
        raise PluginError(
            f"The dataset {name!r} could not be made: {type(error).__name__}: {printable(str(error)[:300])}"
        ) from error


def code_in_scorer(dataset: Any) -> str | None:
    """Returns the name by which a dataset's scorer runs text as code, by reading what it and all that it calls refer to.

    Functions of other packages are not read; the known ones that evaluate text are told by their names.
    """
    for part in (dataset, *_parts(dataset)):
        seen: set[int] = set()
        waiting = [getattr(type(part), "score_answer", None)]
        while waiting:
            function = waiting.pop()
            function = getattr(function, "__func__", function)
            if not isinstance(function, types.FunctionType) or id(function) in seen:
                continue
            seen.add(id(function))
            for name in _names(function.__code__):
                target = function.__globals__.get(name) or getattr(type(part), name, None)
                ours = str(getattr(target, "__module__", "")).startswith("reasoning_gym")
                if name in _EVALUATING and not ours:
                    return name
                if ours and isinstance(target, type):
                    waiting += [member for member in vars(target).values() if isinstance(member, types.FunctionType)]
                elif ours:
                    waiting.append(target)
    return None


def _names(code: types.CodeType) -> Iterator[str]:
    """Yields the names that a function refers to, functions inside it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _parts(dataset: Any) -> Iterator[Any]:
    """Yields the datasets that a composite one draws from."""
    inner = getattr(dataset, "datasets", None)
    if isinstance(inner, dict):
        for part in inner.values():
            yield part
            yield from _parts(part)


def _plain(value: Any) -> Any:
    """Returns a value as JSON holds it; what JSON has no form for becomes its text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value, key=repr) if isinstance(value, set | frozenset) else value)]
    for kind in (bool, int, float, str):  # NumPy's are subclasses of some of these
        if isinstance(value, kind):
            plain = kind(value)
            return plain if not isinstance(plain, float) or math.isfinite(plain) else str(plain)
    return None if value is None else str(value)
