"""The command line as a process of its own, and what it says of a mistake."""

import re
import shlex

from conftest import ROOT

import forked
from swirl_env.config.stages import STAGES


def started(folder, *argv, env=None):
    """Starts ``swirl`` in a folder as a process of its own."""
    return forked.start(["-m", "swirl_env.cli", *argv], cwd=folder, env=env)


def finish(process, seconds=180):
    """Waits until it ends; returns exit code, stdout and stderr."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def error_of(said):
    """Returns the one line in which a command refused."""
    code, _, err = said
    assert code == 2 and err.startswith("swirl: ") and err.count("\n") == 1, said
    return err


def printed_commands(text):
    """Returns the arguments of every command in what a stage printed, as a shell would read them."""
    pattern = rf"\bswirl (?=(?:{'|'.join(STAGES)}) )(.*?)(?=   |\n|$)"
    return [shlex.split(command) for command in re.findall(pattern, text)]


def page_commands(page, heading):
    """Returns the arguments of the commands in the first block of code below a heading of a page of the documentation."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    block = re.search(r"^(?: {4}.*\n)+", text, re.MULTILINE)[0]
    return [shlex.split(line) for line in block.splitlines()]
