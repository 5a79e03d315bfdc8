"""Runs sorted into sections (the same questions) and cells (the same compared keys); what else differs is refused.

A key of the configuration is one of four things: a *seed* tells like runs apart; a *question* key says what they were measured
on, and runs are compared on the same questions only; a *compared* key makes the cells; every other key must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.config.overrides import command
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.stages import folders
from swirl_env.stages.sweeps import SEED, parts
from swirl_env.view.report.results import Result

QUESTIONS = {
    "training": ("task", "setting", "eval.split", "eval.episodes"),
    "episodes": ("task", "n", "samples"),
}
"""Kind of run -> keys that say what it was measured on."""
COMPARED = ("algo", "agent", "run")
"""Keys that are compared if the folders do not say which ones were swept."""
_HARMLESS = ("keep_rollouts", "eval.every", "eval.quick", "eval.at", "eval.before", "trainer.updates")
"""Keys that change nothing about what a run ends with (``trainer.updates`` repeats ``updates``)."""
_PLUGINS = ("task", "agent", "judge", "algo", "tool")
_MOST = 6
"""Most differences that a refusal lists."""


class Cell(msgspec.Struct, frozen=True):
    """Runs that differ in their seeds alone."""

    label: str
    keys: dict[str, Any]
    """The compared keys in which the cells of the section differ."""
    compared: dict[str, Any]
    """All compared keys."""
    results: tuple[Result, ...]

    def values(self, figure: str) -> list[float]:
        """Returns a figure of each finished run that has it."""
        return [value for result in self.results if result.finished and (value := result.value(figure)) is not None]


class Section(msgspec.Struct, frozen=True):
    """Cells that were measured on the same questions."""

    label: str
    kind: folders.Kind
    questions: dict[str, Any]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def main_figure(self) -> str:
        """The figure that the cells are compared by."""
        return self.cells[0].results[0].main_figure


def is_covered(key: str, by: Iterable[str]) -> bool:
    """Whether a dotted key is one of some keys or lies in a section that they name."""
    return any(key == one or key.startswith(f"{one}.") for one in by)


def swept_keys(folder: Path, runs: Iterable[Path]) -> list[str]:
    """Returns the keys in the names of a sweep's cells, seeds and question keys left out."""
    names = [
        part.partition("=")[0] for run in runs if run != folder for part in parts(str(run.relative_to(folder))) if "=" in part
    ]
    ours = {key for keys in QUESTIONS.values() for key in keys}
    return [key for key in dict.fromkeys(names) if not SEED.fullmatch(key) and not is_covered(key, ours)]


def compare(results: Sequence[Result], by: Sequence[str], words: Sequence[str]) -> list[Section]:
    """Returns the sections of a report.

    Args:
        results: the runs.
        by: the compared keys, or sections of keys (``algo``).
        words: arguments of the command, for the one in a refusal.

    Raises:
        ConfigError: if runs on the same questions differ in more than the compared keys and their seeds, or one run is there
            twice.
        UnknownName: if no run has a compared key.
    """
    known = {key for result in results for key in result.config}
    for key in by:
        if not any(is_covered(one, [key]) for one in known) and key not in COMPARED:
            raise unknown_name("key of these runs", key, {*known, *(one.rpartition(".")[0] for one in known if "." in one)})
    groups = _grouped(results, lambda result: _questions(result, by))
    labels = _labels([_questions(group[0], by) for group in groups])
    return [_section(group, label, by, words) for group, label in zip(groups, labels, strict=True)]


def _questions(result: Result, by: Sequence[str]) -> dict[str, Any]:
    keys = [key for key in QUESTIONS[result.kind] if key != "setting" or result.config.get("task.name") is None]
    mine = {k: v for k, v in result.config.items() if is_covered(k, keys) and not is_covered(k, by) and not SEED.fullmatch(k)}
    return {"kind": result.kind, **dict(sorted(mine.items()))}


def _section(results: Sequence[Result], label: str, by: Sequence[str], words: Sequence[str]) -> Section:
    _refuse_differences(results, by, words)
    questions = _questions(results[0], by)

    def compared(result: Result) -> dict[str, Any]:
        return {key: value for key, value in result.config.items() if is_covered(key, by) and not SEED.fullmatch(key)}

    groups = _grouped(results, compared)
    keys = [compared(group[0]) for group in groups]
    for group in groups:
        _refuse_repeated(group)
    varying = [key for key in dict.fromkeys(key for one in keys for key in one) if len({_text(one.get(key)) for one in keys}) > 1]
    cells = tuple(
        Cell(name, {key: one[key] for key in varying if key in one}, one, tuple(group))
        for name, one, group in zip(_labels(keys, by), keys, groups, strict=True)
    )
    return Section(label, results[0].kind, questions, cells, tuple(_dates(results)))


def _dates(results: Sequence[Result]) -> Iterable[str]:
    """Yields a note for each day of a chat template that differs: it is in the prompt, but no choice of anybody's."""
    for key in sorted({key for result in results for key in result.config if key.endswith(".date")}):
        days = sorted({str(result.config.get(key)) for result in results})
        if len(days) > 1:
            yield f"{key} differs between runs: {', '.join(days)}"


def _refuse_differences(results: Sequence[Result], by: Sequence[str], words: Sequence[str]) -> None:
    also = (*by, *QUESTIONS[results[0].kind], *_HARMLESS)
    keys = sorted({key for result in results for key in result.config})
    differing: dict[str, str] = {}
    for key in keys:
        if is_covered(key, also) or SEED.fullmatch(key) or key.endswith(".date") or _is_newer(key, results):
            continue
        first = {_text(result.config.get(key, "absent")): result.path for result in reversed(results)}
        if len(first) > 1:
            values = [f"{value} in {path}" for value, path in reversed(first.items())]
            differing[key] = f"{key} is {', '.join(values[:3])}{', ...' if len(values) > 3 else ''}"
    if differing:
        some = list(differing.values())[:_MOST]
        more = f"; and {len(differing) - _MOST} more" if len(differing) > _MOST else ""
        tops = [key.partition(".")[0] for key in differing]
        wanted = dict.fromkeys([*by, *(top if top in _PLUGINS else key for key, top in zip(differing, tops, strict=True))])
        raise ConfigError(
            f"The runs differ in more than {' and '.join(by)}: {'; '.join(some)}{more}. Leave out the runs that do not belong, "
            f"or compare these keys too: {command('report', *words, 'by=' + ','.join(wanted))}"
        )


def _is_newer(key: str, results: Sequence[Result]) -> bool:
    """Whether a key outside of plugins is unknown to the versions that wrote some of the runs: they ran with its default."""
    return key.partition(".")[0] not in _PLUGINS and any(key not in result.config for result in results)


def _refuse_repeated(results: Sequence[Result]) -> None:
    seen: dict[str, Result] = {}
    for result in results:
        first = seen.setdefault(seed_of(result), result)
        if first is not result:
            raise ConfigError(
                f"{first.path} and {result.path} are the same cell with the same seed ({seed_of(result) or 'none'}): leave one "
                f"of them out, or one run counts twice."
            )


def seed_of(result: Result) -> str:
    """Returns the seeds of a run as text; like runs of two cells have the same."""
    seeds = {key: value for key, value in sorted(result.config.items()) if SEED.fullmatch(key)}
    values = {_text(value) for value in seeds.values()}
    return values.pop() if len(values) == 1 else ", ".join(f"{key}={_text(value)}" for key, value in seeds.items())


def _grouped(results: Iterable[Result], key: Callable[[Result], object]) -> list[list[Result]]:
    groups: dict[bytes, list[Result]] = {}
    for result in results:
        groups.setdefault(msgspec.json.encode(key(result)), []).append(result)
    return list(groups.values())


def _labels(configs: Sequence[dict[str, Any]], by: Sequence[str] = ()) -> list[str]:
    """Returns a short name for each of several configurations: all names that differ, and the fewest other keys that do."""
    keys = sorted(dict.fromkeys(key for one in configs for key in one if key != "kind"), key=lambda key: _place(key, by))
    names = [key for key in keys if _is_name(key) and any(one.get(key) is not None for one in configs)]
    naming = [key for key in names if len({_text(one.get(key)) for one in configs}) > 1] or names[:1]
    rest = [key for key in keys if key not in naming]

    def distinct(extra: Sequence[str] = ()) -> int:
        return len({tuple(_text(one.get(key)) for key in (*naming, *extra)) for one in configs})

    while rest and distinct() < distinct(rest):
        best = max(rest, key=lambda key: distinct([key]))
        naming.append(best)
        rest.remove(best)
    return [", ".join(_word(key, one[key]) for key in naming if one.get(key) is not None) or "all runs" for one in configs]


def _place(key: str, by: Sequence[str]) -> int:
    return next((i for i, one in enumerate(by) if is_covered(key, [one])), len(by))


def _is_name(key: str) -> bool:
    return key.endswith("name") or key in ("setting", "run")


def _word(key: str, value: object) -> str:
    return _text(value) if _is_name(key) else f"{key.rpartition('.')[2]}={_text(value)}"


def _text(value: object) -> str:
    return "null" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
