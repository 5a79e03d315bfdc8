"""Starts the command line as a process of its own."""

import signal
import subprocess
import sys


def started(folder, *argv, **options):
    """Starts ``swirl`` in a folder; it listens to Ctrl-C even where the tests run in the background of a shell, deaf to it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "swirl_env.cli", *argv]
    return subprocess.Popen(command, cwd=folder, preexec_fn=_listen, **pipes, **options)


def _listen():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
