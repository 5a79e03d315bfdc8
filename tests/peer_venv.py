"""Python environments of their own for other people's frameworks, built once into the cache folder."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from swirl_env.cache import build_cached, cache_root

ROOT = Path(__file__).resolve().parent.parent


def peer_python(name: str, *packages: str) -> Path:
    """The Python of an environment that sees this one's packages (torch among them) and has `packages` without their needs."""
    folder = cache_root() / "peers" / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"

    def build(target: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(target)], check=True)
        lib = next((target / "lib").iterdir()) / "site-packages"
        here = {sysconfig.get_paths()["purelib"], *(path for path in sys.path if path.endswith("site-packages"))}
        (lib / "running_environment.pth").write_text("\n".join([str(ROOT), *sorted(here)]) + "\n")
        command = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(target / "bin" / "python"),
            "install",
            "-q",
            "--no-deps",
            *packages,
        ]
        installed = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if installed.returncode != 0:
            raise RuntimeError((installed.stderr.strip().splitlines() or ["pip failed"])[-1])

    try:
        return build_cached(folder, build) / "bin" / "python"
    except RuntimeError as error:
        pytest.skip(f"{name} cannot be installed: {error}")


def run_peer(python: Path, script: str, *arguments: str, timeout: float = 300) -> str:
    """What a script of the tests prints last under another environment's Python."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [str(python), str(ROOT / "tests" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip().splitlines()[-1]
