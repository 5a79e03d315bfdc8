"""The contract of task sources and their corpora."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from swirl_env.contract.rules import Unchecked, attempt, expect, shown, storable
from swirl_env.errors import SwirlError
from swirl_env.protocols import Corpus, FindsTasks
from swirl_env.registry import load
from swirl_env.types import Passage, Task

SAMPLE = 200
"""Tasks and passages that are looked at, spread evenly; ids are compared over ten times as many."""


def has_length_items_and_attributes(tasks: Unchecked) -> None:
    """Has `len`, items, `corpus`, `split`, `tools` and `max_steps`."""
    for name in ("__len__", "__getitem__"):
        expect(hasattr(type(tasks), name), f"expected a method `{name}`, got none; add it to {type(tasks).__name__}.")
    expect(hasattr(tasks, "corpus"), "expected an attribute `corpus`, got none; set it to a Corpus, or None without search.")
    split, tools, most = (getattr(tasks, name, None) for name in ("split", "tools", "max_steps"))
    expect(isinstance(split, str) and bool(split), f"expected `split` to name the split, got {shown(split)}.")
    texts = isinstance(tools, tuple) and all(isinstance(tool, str) for tool in tools)
    expect(texts, f"expected `tools` to be a tuple of tool names, got {shown(tools)}; () for none.")
    number = isinstance(most, int) and not isinstance(most, bool) and most >= 1
    expect(number, f"expected `max_steps` to be an integer of at least 1, got {shown(most)}.")


def tools_exist(tasks: Unchecked) -> None:
    """Every tool that it names is registered or importable."""
    for name in tasks.tools:
        try:
            load("tool", name)
        except SwirlError as error:
            expect(False, f"expected `tools` to name tools that exist, got {name!r}: {error}")


def items_are_tasks(tasks: Unchecked) -> None:
    """Every item is a `Task` with a question, the same each time it is asked for, and can be stored."""
    expect(len(tasks) > 0, "expected at least one task, got none; check split, limit or filters.")
    for i, task in _sample(tasks):
        expect(isinstance(task, Task), f"expected a Task at {i}, got {type(task).__name__}; build swirl_env.types.Task.")
        expect(bool(task.id) and bool(task.question.strip()), f"expected an id and a question at {i}, got {shown(task)}.")
        expect(tasks[i] == task, f"expected the same task at {i} every time, got another; derive it from the index alone.")
        why = storable(task)
        expect(why is None, f"expected JSON values at {i}, but {why}; convert them.")


def indexing_ends_after_the_last_task(tasks: Unchecked) -> None:
    """An index past the end raises IndexError, so that `for task in tasks` ends."""
    for i in (len(tasks), len(tasks) + 1_000):
        got = "a task"
        try:
            tasks[i]
        except IndexError:
            continue
        except Exception as error:
            got = type(error).__name__
        expect(False, f"expected IndexError for tasks[{i}] with len {len(tasks)}, got {got}; raise IndexError(index).")


def ids_are_unique(tasks: Unchecked) -> None:
    """No two tasks share an id."""
    seen: dict[str, int] = {}
    for i, task in _sample(tasks, 10 * SAMPLE):
        expect(task.id not in seen, f"expected ids of their own, got {shown(task.id)!r} at {seen.get(task.id)} and {i}.")
        seen[task.id] = i


def ids_are_found(tasks: Unchecked) -> None:
    """If it has `find`, that returns the task with an id, and None or an error for an unknown one."""
    if not isinstance(tasks, FindsTasks):
        return
    for i, task in _sample(tasks, 10):
        task_again = attempt(tasks.find, task.id, given=f"the id {task.id!r}", fix="return the task of that id")
        expect(task_again == task, f"expected find({task.id!r}) to give the task at {i}, got {shown(task_again)}.")


def plans_lead_forward(tasks: Unchecked) -> None:
    """Gold plans use results of earlier steps only and hold a query in every step."""
    for i, task in _sample(tasks):
        for at, step in enumerate(task.plan):
            whole = bool(step.tool) and bool(step.query)
            expect(whole, f"expected a tool and a query in plan step {at} of task {i}, got {shown(step)}.")
            early = all(0 <= need < at for need in step.needs)
            expect(early, f"expected plan step {at} of task {i} to need earlier steps, got needs={step.needs}.")


def corpus_is_readable(tasks: Unchecked) -> None:
    """The corpus has a length, a stream, items and a fingerprint, and all of them agree."""
    corpus = tasks.corpus
    if corpus is None:
        return
    fits = isinstance(corpus, Corpus)
    expect(fits, f"expected a corpus with len, iter, items and fingerprint, got {type(corpus).__name__}.")
    named = isinstance(corpus.fingerprint, str) and bool(corpus.fingerprint)
    expect(named, f"expected a text as fingerprint, got {shown(corpus.fingerprint)}; hash the content.")
    seen = 0
    for seen, passage in enumerate(_head(corpus), 1):
        expect(isinstance(passage, Passage), f"expected a Passage at {seen - 1}, got {type(passage).__name__}.")
        if seen % max(1, min(len(corpus), 10 * SAMPLE) // 20) == 0:
            same = corpus[seen - 1] == passage
            expect(same, f"expected corpus[{seen - 1}] to be what the stream gives there, got {shown(corpus[seen - 1])}.")
    wanted = min(len(corpus), 10 * SAMPLE)
    expect(seen == wanted, f"expected {wanted} passages in the stream, got {seen}; make len ({len(corpus)}) and iter agree.")


def passage_ids_are_unique(tasks: Unchecked) -> None:
    """No two passages share an id."""
    seen: set[str] = set()
    for passage in _head(tasks.corpus) if tasks.corpus is not None else ():
        expect(passage.id not in seen, f"expected ids of their own, got the passage id {shown(passage.id)!r} twice.")
        seen.add(passage.id)


def evidence_is_in_the_corpus(tasks: Unchecked) -> None:
    """The passages that small sets name as evidence exist."""
    if tasks.corpus is None or len(tasks.corpus) > 10 * SAMPLE:
        return
    ids = {passage.id for passage in tasks.corpus}
    for i, task in _sample(tasks):
        named = {*task.evidence, *itertools.chain.from_iterable(step.evidence for step in task.plan)}
        lost = sorted(named - ids)
        expect(not lost, f"expected the evidence of task {i} in the corpus, got {shown(lost)}; use ids of its passages.")


def built_twice_it_is_the_same(tasks: Unchecked, twin: Unchecked) -> None:
    """A second source with the same options has the same tasks and the same corpus."""
    fix = "draw from a seed that is an option"
    expect(len(tasks) == len(twin), f"expected {len(tasks)} tasks again, got {len(twin)}; {fix}.")
    for i, task in _sample(tasks, 20):
        expect(twin[i] == task, f"expected task {i} again, got {shown(twin[i].question)!r}; {fix}.")
    one, two = (source.corpus and source.corpus.fingerprint for source in (tasks, twin))
    expect(one == two, f"expected the fingerprint {one} again, got {two}; hash the content, not the object.")
    if tasks.corpus is not None:
        same = list(itertools.islice(tasks.corpus, 20)) == list(itertools.islice(twin.corpus, 20))
        expect(same, "expected the passages of this fingerprint again, got others; hash all that they depend on.")


def _head(corpus: Unchecked) -> Iterator[Passage]:
    return itertools.islice(corpus, 10 * SAMPLE)


def _sample(tasks: Unchecked, most: int = SAMPLE) -> Iterator[tuple[int, Unchecked]]:
    """Yields up to `most` tasks with their positions, spread evenly, the first and the last among them."""
    n = len(tasks)
    indices = range(n) if n <= most else sorted({round(k * (n - 1) / (most - 1)) for k in range(most)})
    for i in indices:
        yield i, attempt(tasks.__getitem__, i, given=f"tasks[{i}] with len {n}", fix="give a task for every index below len")


RULES = (
    has_length_items_and_attributes,
    items_are_tasks,
    tools_exist,
    indexing_ends_after_the_last_task,
    ids_are_unique,
    ids_are_found,
    plans_lead_forward,
    corpus_is_readable,
    passage_ids_are_unique,
    evidence_is_in_the_corpus,
)
GATES = (has_length_items_and_attributes, items_are_tasks)
TWIN_RULES = (built_twice_it_is_the_same,)
