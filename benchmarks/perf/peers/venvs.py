"""A virtual environment per peer, built by pip into the cache folder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import venv
from pathlib import Path

import msgspec

from swirl_env.cache import build_cached, cache_root

_SHARED = "running_environment.pth"


class Peer(msgspec.Struct, frozen=True):
    """A package that is measured next to this one."""

    name: str
    packages: tuple[str, ...]
    """What pip installs, with the versions that the drivers were written for."""
    needs_torch: bool = False
    """Whether it gets torch and its relatives from the running environment instead of downloading its own."""

    @property
    def version(self) -> str:
        """The version of its first package."""
        return self.packages[0].partition("==")[2]


PEERS = {
    "gem": Peer("GEM", ("gem-llm==0.1.0",)),
    "verifiers": Peer("verifiers", ("verifiers==0.4.0",)),
    "skyrl": Peer("SkyRL-gym", ("skyrl-gym==0.4.0",)),
    "aviary": Peer("aviary", ("fhaviary==0.37.0",)),
    "trl": Peer("TRL", ("trl==1.16.0", "peft"), needs_torch=True),
    "bm25s": Peer("bm25s", ("bm25s==0.3.16", "numba", "PyStemmer")),
    "tantivy": Peer("tantivy", ("tantivy==0.27.0",)),
}


def python_of(peer: Peer, root: Path | None = None) -> tuple[str, str]:
    """Returns the Python of a peer's environment and ``""``, or ``""`` and why there is none; builds it if it is not there yet.

    Args:
        peer: the peer.
        root: folder of the environments; None for ``peers`` in the cache folder.
    """
    if peer.needs_torch and importlib.util.find_spec("torch") is None:
        return "", "it needs torch, which the running environment lacks: pip install 'swirl-env[train]'"
    tag = f"py{sys.version_info.major}.{sys.version_info.minor}"
    name = "-".join([*peer.packages, tag]).replace("==", "-").replace("/", "_")
    try:
        folder = build_cached((root or cache_root() / "peers") / name, lambda target: _install(peer, target))
    except (_Failed, OSError) as error:
        return "", str(error)
    return str(folder / "bin" / "python"), ""


class _Failed(Exception):
    """What pip said."""


def _install(peer: Peer, folder: Path) -> None:
    # An environment knows its own place by its Python's, so it may be built under one name and used under another.
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    python = folder / "bin" / "python"
    if peer.needs_torch:
        _share(python)
    requirements = [*peer.packages, *_pins(peer)]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        raise _Failed(last_error(done.stderr))


def _share(python: Path) -> None:
    """Lets an environment see the packages of the running one, behind its own."""
    site = next(python.parent.parent.glob("lib/python*/site-packages"))
    places = [place for place in sys.path if place.endswith("-packages")]
    (site / _SHARED).write_text("\n".join(places) + "\n", encoding="utf-8")


def _pins(peer: Peer) -> list[str]:
    """Returns the very torch that is there as a requirement: a peer that wants another is refused, not served by a download."""
    return [f"torch=={importlib.metadata.version('torch')}"] if peer.needs_torch else []


def last_error(text: str) -> str:
    """Returns the last line in which pip names an error; without one the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip failed and said nothing"])[-1].removeprefix("ERROR:").strip()
