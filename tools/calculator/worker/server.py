"""The worker process: ``python -P server.py MEMORY_MB``. Requests and replies are lines of JSON on its standard streams.

Two processes, so that a killed calculation costs milliseconds rather than an import of SymPy: a *keeper* imports SymPy once
and forks a *solver*, which reads requests, computes under a timer and answers. A calculation that overruns is killed by the
kernel, whatever it is doing; the keeper then forks the next solver, which begins by saying what became of the last.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import resource
import signal
import struct
import sys
import types
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swirl_env.tools.calculator.goal import Reply
    from swirl_env.tools.calculator.rational import Node
    from swirl_env.tools.calculator.text import CalcError, ErrorKind

    Answer = Callable[..., Reply]

WALL = 1.5
"""Elapsed time over processor time at which a calculation is killed too, for machines under load."""
_POLL_S = 2.0
_FATE: dict[int, str] = {signal.SIGPROF: "timeout", signal.SIGALRM: "timeout"}
_SENTENCES = {"timeout": "The calculation took too long.", "limit": "The calculation needs too much memory."}


def decode(node: Node) -> Node:
    """Returns a tree as it was before JSON: tuples for lists, Fractions for ``{"q": [top, bottom]}``."""
    if isinstance(node, list):
        return tuple(decode(child) for child in node)
    return Fraction(*node["q"]) if isinstance(node, dict) else node


def failure(kind: str, request: int) -> bytes:
    """Returns the reply to a request whose calculation was killed."""
    return json.dumps({"id": request, "error": kind, "text": _SENTENCES[kind]}).encode() + b"\n"


def _refusal(kind: ErrorKind, text: str) -> Reply:
    return {"error": kind, "text": text}


def respond(line: bytes, answer: Answer, failed: type[CalcError]) -> tuple[bytes, bool]:
    """Returns the reply to one request, and whether this process is still fit for the next."""
    request = json.loads(line)
    set_current(request["id"])
    timeout = request["timeout"]
    signal.setitimer(signal.ITIMER_PROF, timeout)
    # Whoever had to wait for the start of this process waits that much less for the calculation.
    signal.setitimer(signal.ITIMER_REAL, max(timeout, timeout * WALL - request["waited"]))
    reply: Reply
    try:
        reply, fit = answer(*map(decode, request["goal"])), True
    except (MemoryError, RecursionError):
        reply, fit = _refusal("limit", _SENTENCES["limit"]), False
    except failed as error:
        reply, fit = _refusal(error.kind, str(error)), True
    except Exception:  # SymPy's own trouble, whose words may quote the input
        reply, fit = _refusal("invalid", "The expression cannot be evaluated."), True
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return json.dumps({**reply, "id": request["id"]}).encode() + b"\n", fit


def serve(answer: Answer, failed: type[CalcError], first: bytes) -> None:
    """The solver: answers requests until its input ends."""
    write(first)
    with os.fdopen(0, "rb", closefd=False) as requests:
        # readline only ever holds one request: the caller waits for each reply before it sends the next.
        while line := requests.readline():
            reply, fit = respond(line, answer, failed)
            write(reply)
            set_current(0)
            if not fit:
                os._exit(3)
    os._exit(0)


def write(data: bytes) -> None:
    """Writes all of a reply."""
    while data:
        data = data[os.write(1, data) :]


def keep(answer: Answer, failed: type[CalcError]) -> None:
    """The keeper: forks a solver, waits for its end, forks the next."""
    parent, warm = os.getppid(), False

    def check(*_: object) -> None:
        """Ends everything once nobody is left to ask; warms up as soon as that keeps nobody waiting."""
        nonlocal warm
        if os.getppid() != parent:
            stop()
        if not warm and not current():
            warm = True
            warm_up(answer)

    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, _POLL_S, _POLL_S)
    first = b'{"ready": true}\n'
    while True:
        set_current(0)
        solver = os.fork()
        if solver == 0:
            die_with_parent()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            serve(answer, failed, first)
        STATE["solver"] = solver
        _, status = os.waitpid(solver, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status) == 0:
                os._exit(0)
            first = b""
        else:
            first = failure(_FATE.get(os.WTERMSIG(status), "limit"), current())


def warm_up(answer: Answer) -> None:
    """Loads what SymPy imports late and fills its caches, while the first solver is there already: later ones inherit it."""
    x = "x"
    goals: list[tuple[str, Node]] = [
        ("solve", (("=", ("^", x, 3), x),)),
        ("solve", (("=", ("call", "cos", x), x),)),
        ("solve", (("<", ("^", x, 2), 4),)),
    ]
    goals += [("value", (("call", name, ("*", x, ("call", "exp", x)), x),)) for name in ("diff", "integrate")]
    goals += [("value", (("call", "limit", ("*", ("call", "sin", x), ("inv", x)), x, 0),))]
    goals += [("value", (("call", "simplify", ("*", ("+", ("^", x, 2), -1), ("inv", ("+", x, -1)))),))]
    goals += [("truth", ((">", ("const", "pi"), 3),)), ("value", (("call", "sqrt", 2),))]
    for kind, nodes in goals:
        answer(kind, nodes, (), ())


STATE: dict[str, int] = {}
"""Process id of the solver."""
CURRENT = mmap.mmap(-1, 8)
"""Id of the request that the solver works on, 0 if it waits; keeper and solvers share these bytes."""


def current() -> int:
    """Returns the id of the request that the solver works on, 0 if it waits."""
    return int(struct.unpack("Q", CURRENT[:])[0])


def set_current(request: int) -> None:
    """Notes which request the solver works on."""
    CURRENT[:] = struct.pack("Q", request)


def stop() -> None:
    """Ends keeper and solver, once nobody is left to ask."""
    os.kill(STATE["solver"], signal.SIGKILL)
    os._exit(0)


def die_with_parent() -> None:
    """Asks Linux to kill this process when the keeper dies; elsewhere the end of its input does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> None:
    """Starts the keeper."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that asked
    sys.set_int_max_str_digits(20_000)
    gc.disable()  # an import makes no garbage worth the search: a third of the time
    here = os.path.dirname(os.path.abspath(__file__))
    calculator = os.path.dirname(here)
    paths = {"swirl_env": [], "swirl_env.tools": [], "swirl_env.tools.calculator": [calculator]}
    for name, path in (paths | {"swirl_env.tools.calculator.worker": [here]}).items():
        # The packages themselves import gymnasium and the tool: a worker needs only the modules in these two folders.
        package = types.ModuleType(name)
        package.__path__ = path
        sys.modules[name] = package
    from swirl_env.tools.calculator.text import CalcError
    from swirl_env.tools.calculator.worker.answer import answer

    gc.freeze()
    gc.enable()
    size = int(sys.argv[1]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keep(answer, CalcError)


if __name__ == "__main__":
    main()
