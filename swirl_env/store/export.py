"""A run in the formats of other tools: chat JSONL, Parquet, Hugging Face datasets.

One row per trajectory. ``messages`` is the conversation of the last state, with the last action at its end; ``rewards``
and ``labels`` have one entry per assistant message, None if the step has no verdict.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.episodes.transcript import initial_state, next_state
from swirl_env.errors import MissingExtra, StoreError
from swirl_env.store.codec import encode_trajectory
from swirl_env.types import Trajectory

Row = dict[str, Any]


def chat_row(trajectory: Trajectory) -> Row:
    """Returns a trajectory as a conversation with a reward for each assistant message."""
    state = initial_state(trajectory.task, trajectory.prompt, trajectory.settings)
    for step in trajectory.steps:
        state = next_state(state, step)
    turns = state.turns[:-1] if trajectory.steps else state.turns  # nothing follows the last action
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    verdicts = [step.verdict for step in trajectory.steps]
    return {
        "task_id": trajectory.task.id,
        "sample": trajectory.sample,
        "messages": messages,
        "rewards": [verdict.reward if verdict.status == "scored" else None for verdict in verdicts],
        "labels": [verdict.label if verdict.status == "scored" else None for verdict in verdicts],
        "answer": trajectory.outcome.answer,
        "gold": trajectory.task.answer,
        "correct": trajectory.outcome.correct,
        "f1": trajectory.outcome.f1,
        "ended": trajectory.ended,
        "agent": trajectory.agent,
    }


def to_chat(trajectories: Iterable[Trajectory], path: str | os.PathLike[str]) -> int:
    """Writes chat JSONL, one `chat_row` per line, and returns how many."""
    count = 0
    with replacing(path) as draft, draft.open("wb") as file:
        for trajectory in trajectories:
            file.write(msgspec.json.encode(chat_row(trajectory)) + b"\n")
            count += 1
    return count


def to_parquet(trajectories: Iterable[Trajectory], path: str | os.PathLike[str], batch: int = 1_000) -> int:
    """Writes a Parquet file and returns how many rows; memory is that of `batch` trajectories.

    Its columns are those of `chat_row`, and ``record``, the whole trajectory as its line in the store.

    Raises:
        MissingExtra: if pyarrow is not installed.
    """
    arrow, parquet = _import("pyarrow", "Parquet"), _import("pyarrow.parquet", "Parquet")
    schema = _schema(arrow)
    rest, count = iter(trajectories), 0
    with replacing(path) as draft, parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
        while group := list(islice(rest, batch)):
            rows = [{**chat_row(t), "record": encode_trajectory(t).decode()} for t in group]
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def to_dataset(trajectories: Iterable[Trajectory], path: str | os.PathLike[str]) -> int:
    """Writes a folder for ``datasets.load_from_disk`` (columns as `to_parquet`) and returns how many rows.

    Raises:
        MissingExtra: if datasets is not installed.
    """
    datasets = _import("datasets", "Hugging Face datasets")
    with tempfile.TemporaryDirectory() as folder:
        count = to_parquet(trajectories, Path(folder, "rows.parquet"))
        dataset = datasets.Dataset.from_parquet(str(Path(folder, "rows.parquet")), cache_dir=folder)
        dataset.save_to_disk(os.fspath(path))
    return count


EXPORTS: dict[str, Callable[[Iterable[Trajectory], str | os.PathLike[str]], int]] = {
    "chat": to_chat,
    "parquet": to_parquet,
    "dataset": to_dataset,
}
"""The formats, by name."""


def _import(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        raise MissingExtra(f"Writing {what} needs {root!r}. Install it with: pip install 'swirl-env[train]'") from error


def _schema(arrow: Any) -> Any:
    text, number, flag = arrow.string(), arrow.float64(), arrow.bool_()
    return arrow.schema(
        {
            "task_id": text,
            "sample": arrow.int64(),
            "messages": arrow.list_(arrow.struct({"role": text, "content": text})),
            "rewards": arrow.list_(number),
            "labels": arrow.list_(text),
            "answer": text,
            "gold": text,
            "correct": flag,
            "f1": number,
            "ended": text,
            "agent": text,
            "record": text,
        }
    )


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a file to write to; it replaces `path` once it is whole."""
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, target)
    except OSError as error:
        raise StoreError(f"{target} could not be written: {error.strerror or error}.") from error
    finally:
        draft.unlink(missing_ok=True)
