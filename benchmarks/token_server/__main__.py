"""Serves a model until it is interrupted."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from swirl_env.benchmarks.token_server.server import TokenServer


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the model that is named; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m swirl_env.benchmarks.token_server", description="Serves one model, on a CPU."
    )
    parser.add_argument("model", help="folder of a causal language model with its tokenizer")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args(argv)
    with TokenServer(given.model, given.port) as server:
        print(f"serving {given.model} at {server.url}", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
