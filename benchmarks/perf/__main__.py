"""The performance suite: ``python -m swirl_env.benchmarks.perf NAME [--json PATH] [--quick] [--strict]``.

Each benchmark prints a table of medians, 99th percentiles and ratios to a baseline that runs in the same process, and says
whether the bar is met. The figures go to a JSON file too, by default under ``runs/perf/``.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
from rich.console import Console

from swirl_env.benchmarks.perf.timing import Report, machine, show
from swirl_env.errors import SwirlError, unknown_name


class Benchmark(NamedTuple):
    """Where a benchmark is, and the size at which it only shows that it runs."""

    target: str
    quick: int
    about: str


BENCHMARKS = {
    "env_step": Benchmark("env:env_step", 20, "one environment, rules judge and full record"),
    "vector_step": Benchmark("env:vector_step", 70, "64 episodes in lockstep"),
    "search": Benchmark("search:search", 500, "BM25 over 100,000 passages"),
    "corpus": Benchmark("corpus:corpus", 3_000, "BM25 over 5,000,000 passages: killed, resumed, opened cold"),
    "calculator": Benchmark("calculator:calculator", 20, "plain arithmetic and warm symbolic queries"),
    "generate": Benchmark("generate:generate", 4, "tokens per second next to a bare generate"),
    "likelihood": Benchmark("likelihood:likelihood", 1, "steps per second of the likelihood judge, prefixes shared"),
    "train": Benchmark("train:train", 8, "K steps in one pass, and the memory of the loss"),
    "credit": Benchmark("credit:credit", 8, "an update of every credit rule next to one of reinforce"),
    "viewer": Benchmark("viewer:viewer", 20, "the page of 10,000 episodes in headless Chromium"),
    "server": Benchmark("server:server", 4, "episodes of the openai agent next to a server that is never idle"),
    "peers": Benchmark("peers:peers", 500, "steps, retrieval and updates next to other packages, which pip installs"),
    "ray": Benchmark("workers:workers", 30, "two workers that are killed, and a slow judge on two workers"),
    "store": Benchmark("store:store", 100, "50,000 trajectories written, read and filtered"),
}
"""Name -> benchmark. Each takes ``size`` and returns a `Report`."""


def run(name: str, quick: bool = False, size: int | None = None, **options: Any) -> Report:
    """Runs one benchmark.

    Args:
        name: a key of `BENCHMARKS`.
        quick: at a tiny size, to see that it runs; the figures mean nothing then.
        size: the size, e.g. how many passages; by default the benchmark's own.
        **options: further options of the benchmark.
    """
    if name not in BENCHMARKS:
        raise unknown_name("benchmark", name, [*BENCHMARKS, "all"])
    benchmark = BENCHMARKS[name]
    module, _, attr = benchmark.target.partition(":")
    measure = cast("Callable[..., Report]", getattr(importlib.import_module(f"swirl_env.benchmarks.perf.{module}"), attr))
    start = time.perf_counter()
    try:
        size = benchmark.quick if quick else size
        report = measure(**options) if size is None else measure(size=size, **options)
    finally:
        gc.unfreeze()
    return msgspec.structs.replace(report, seconds=time.perf_counter() - start, machine=machine() | {"quick": quick})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmarks that are named and returns the exit code."""
    names = "\n".join(f"  {name:<12} {b.about}" for name, b in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m swirl_env.benchmarks.perf",
        description="Measures speed side by side with a baseline.",
        epilog=f"benchmarks:\n{names}\n  {'all':<12} each but peers, in a process of its own",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="benchmark to run, or all")
    parser.add_argument("--json", type=Path, help="file (for all: folder) for the figures; default runs/perf/NAME.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--passages", "--size", type=int, metavar="N", dest="size", help="size, e.g. passages of corpus, search")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a bar is missed")
    parser.add_argument("--grpo", action="store_true", help="peers: updates of a language model too, which takes minutes")
    given = parser.parse_args(argv)
    options: dict[str, Any] = {"grpo": True} if given.grpo else {}
    if options and given.name != "peers":
        parser.error("--grpo is an option of peers")
    if given.size is not None and given.size < 1:
        parser.error(f"--size is a number of at least 1; got {given.size}")
    try:
        if given.name == "all":
            return _all(given.json or Path("runs/perf"), given.quick, given.strict)
        report = run(given.name, given.quick, given.size, **options)
    except SwirlError as error:
        print(f"perf: {error}", file=sys.stderr)
        return 2
    path = given.json or Path("runs/perf") / f"{given.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    console = Console(width=None if sys.stdout.isatty() else 130)
    show(report, console)
    console.print(f"figures: {path}", soft_wrap=True, highlight=False)
    return 1 if given.strict and report.missed else 0


def _all(folder: Path, quick: bool, strict: bool) -> int:
    """Runs every benchmark in a process of its own, so that none inherits another's memory or warm caches.

    All but `peers`, which installs packages.
    """
    import subprocess

    flags = [name for name, given in (("--quick", quick), ("--strict", strict)) if given]
    codes = []
    for name in [name for name in BENCHMARKS if name != "peers"]:
        command = [sys.executable, "-m", "swirl_env.benchmarks.perf", name, "--json", str(folder / f"{name}.json"), *flags]
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
