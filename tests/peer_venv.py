"""Python environments of their own for other people's frameworks, built once into the cache folder."""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
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


AWAY = re.compile("name resolution|Name or service not known|ConnectionError|timed out|Connection refused|from versions: none")
"""How pip says that its index is out of reach."""


def own_python(name: str, *packages: str) -> Path:
    """The Python of an environment that has `packages`, what they need, what swirl-env itself needs, and nothing else."""
    needs = sorted([*packages, *tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]])
    digest = hashlib.blake2b(repr((sys.version_info[:2], needs)).encode(), digest_size=4).hexdigest()

    def build(target: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", target], check=True)
        pip = [sys.executable, "-m", "pip", "--python", target / "bin" / "python", "install", "-q"]
        installed = subprocess.run([*pip, *needs], capture_output=True, text=True, timeout=900)
        if installed.returncode:
            (pytest.skip if AWAY.search(installed.stderr) else pytest.fail)(f"{name}: {installed.stderr.strip()[-300:]}")

    return build_cached(cache_root() / "peers" / f"{name}-{digest}", build) / "bin" / "python"


def environment_of(python: Path, site: Path, **variables: str) -> dict[str, str]:
    """The variables of a process of that Python which sees this checkout, its entry points, and the packages in `site`."""
    # An editable installation may leave an egg-info in the checkout too, which Python then meets first.
    known = importlib.metadata.Distribution.discover(name="swirl-env")
    places = (Path(str(own.locate_file(f"swirl_env-{own.version}.dist-info"))) for own in known)
    info = next(place for place in places if place.is_dir())
    shutil.copytree(info, site / info.name, dirs_exist_ok=True)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    seen = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV", "OPENAI"))}
    return {
        **seen,
        "PATH": path,
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        **variables,
    }


def install_package(folder: Path, site: Path) -> None:
    """Installs a package without its needs into a folder."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--target", site]
    done = subprocess.run([*pip, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_script(python: Path, command: list[str], **options: object) -> str:
    """What a command of another environment prints; its scripts name the folder that they were built in, so Python runs them."""
    words = [str(python), str(python.parent / command[0]), *command[1:]]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout
