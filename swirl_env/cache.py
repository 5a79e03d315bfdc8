"""The cache folder: what is built once (search indexes, converted models, warm starts), and remembered fingerprints of files."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_SETTLED_NS = 2_000_000_000


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Returns the cache folder: `cache_dir`, else `SWIRL_CACHE_DIR`, else `swirl-env` in `XDG_CACHE_HOME` or ~/.cache."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if own := os.environ.get("SWIRL_CACHE_DIR"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "swirl-env"


def file_fingerprint(path: Path) -> str:
    """Returns the hash of a file's bytes, remembered under the file's identity (path, size, times, inode).

    The change time is part of the identity, as a changed file may carry its old modification time. A file changed within
    the last two seconds is not remembered: it could change again without its times showing it.
    """
    stat = path.stat()
    identity = f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}\0{stat.st_dev}"
    note = cache_root() / "fingerprints" / hashlib.blake2b(os.fsencode(identity), digest_size=16).hexdigest()
    try:
        remembered = note.read_text("ascii")
        if len(remembered) == 32 and int(remembered, 16) >= 0:
            return remembered
    except (OSError, ValueError):
        pass
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    after = path.stat()
    unchanged = (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if unchanged and time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS:
        _remember(note, digest)
    return digest


def build_cached(target: Path, build: Callable[[Path], None]) -> Path:
    """Returns a cached folder; `build` fills it if it is not there yet, in one process and thread at a time.

    Args:
        target: the folder.
        build: writes into the empty folder that it gets.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        return target
    with open(f"{target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        if not target.is_dir():
            # Written elsewhere and renamed: a killed process leaves no folder that looks whole.
            aside = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
            try:
                build(aside)
                aside.chmod(0o755)
                os.rename(aside, target)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    return target


def _remember(note: Path, text: str) -> None:
    """Writes a note whole or not at all; a cache that cannot be written costs time, not correctness."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=note.parent)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(name, note)
    except OSError:
        pass
