"""The tool `python`: sessions that remember, limits that hold, and a sandbox that refuses what it says it refuses."""

import os
import time

import pytest

from fakes import SumTasks
from swirl_env.env import ToolUseEnv
from swirl_env.errors import ConfigError
from swirl_env.tools.python import Python
from swirl_env.types import Task
from swirl_env.vector import ToolVectorEnv

TASK = Task("t", "q")


@pytest.fixture(scope="module")
def session():
    session = Python(timeout_s=20).open(TASK, 3)
    yield session
    session.close()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("2**10", "1024"),
        ("x = 3\nprint('hi')\nx * 2", "hi\n6"),
        ("x = 5", "(no output)"),
        ("import math\nmath.isqrt(50)", "7"),
        ("from fractions import Fraction as F\nF(1, 3) + F(1, 6)", "Fraction(1, 2)"),
        ("def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nf(10)", "3628800"),
        (
            "class A:\n    def __init__(self, v): self.v = v\n    def __add__(self, o): return self.v + o.v\nA(2) + A(3)",
            "5",
        ),
        ("'{:>4}|{}'.format(7, 'a')", "'   7|a'"),
        ("sorted(map('<{}>'.format, [2, 1]))", "['<1>', '<2>']"),
        ("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    print(e)", "division by zero"),
        ("[w for w in 'a b'.split()]; {c: i for i, c in enumerate('ab')}", "{'a': 0, 'b': 1}"),
        ("from collections import namedtuple\nnamedtuple('P', 'x y')(1, 2).x", "1"),
        ("import re\nre.sub(r'\\d', lambda m: '#', 'a1b2')", "'a#b#'"),
    ],
)
def test_code_runs(session, code, text):
    (result,) = session.run([code])
    assert (result.text, result.error) == (text, None)


@pytest.mark.parametrize(
    "code",
    [
        "import os",
        "import sys",
        "import subprocess, socket",
        "from math import __loader__",
        "from collections import _sys",
        "import collections.abc",
        "from . import x",
        "open('/etc/passwd').read()",
        "__import__('os')",
        "eval('1')",
        "exec('x=1')",
        "compile('1', '', 'eval')",
        "globals()",
        "().__class__.__base__.__subclasses__()",
        "(lambda: 0).__globals__",
        "print.__self__",
        "len.__module__",
        "getattr((), '__class__')",
        "getattr('', 'format')",
        "setattr(int, '__add__', 1)",
        "'{0.__class__.__mro__}'.format(1)",
        "'{0[__class__]}'.format({})",
        "'{:{x.__class__}}'.format(1, x=1)",
        "str.format('{0.real}', 1)",
        "(i for i in [1]).gi_frame.f_back",
        "__builtins__",
        "x = __builtins__",
        "def __getattr__(n): pass",
        "class A:\n    def __del__(self): pass",
        "class A:\n    __slots__ = ()",
        "async def f(): pass",
        "match 1:\n    case object(__class__=c): pass",
        "def f(__class__): pass",
        "try:\n    1/0\nexcept Exception as e:\n    e.__traceback__.tb_frame",
        "import math\nmath.__loader__",
        "import statistics\nstatistics.sys",
        "import random\nrandom._os",
        "type(1).mro()",
        "type('A', (), {})",
        "input()",
        "breakpoint()",
        "import datetime\ndatetime.date.today()",
        "f'{().__class__}'",
        "import functools\nfunctools.wraps",
        "import operator\noperator.attrgetter('x')",
        "from os import system as f",
    ],
)
def test_ways_out_of_the_sandbox_are_refused(session, code):
    (result,) = session.run([code])
    assert result.error == "invalid" and "root" not in result.text, result
    assert any(word in result.text for word in ("available", "not defined", "attribute", "Error")), result
    assert session.run(["1 + 1"])[0].text == "2"


def test_limits_hold():
    session = Python(timeout_s=1.0, memory_mb=128, max_output=100).open(TASK, 0)
    session.run(["kept = 1"])
    (result,) = session.run(["[0] * 10**10"])
    assert result.error == "limit" and session.run(["kept"])[0].text == "1"
    (result,) = session.run(["print('y' * 10_000)"])
    assert result.error is None and len(result.text) < 200 and "cut" in result.text
    for code in ("while True: pass", "9**9**9**9", "while True:\n    try:\n        while True: pass\n    except Exception: pass"):
        (result,) = session.run([code])
        assert result.error == "timeout" and "lost" in result.text
    assert "not defined" in session.run(["kept"])[0].text
    assert session.run(["x" * 200_000])[0].error == "limit"
    session.close()
    assert session.run(["1"])[0].error == "unavailable"


def test_no_process_outlives_its_session():
    sessions = [Python().open(TASK, 0) for _ in range(3)]
    for session in sessions:
        session.run(["1"])
    pids = [session._process.pid for session in sessions]
    assert len(set(pids)) == 3
    sessions.pop().close()
    del session
    while sessions:
        del sessions[0]
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_randomness_follows_the_seed_and_forks_are_apart():
    code = "import random\nrandom.random()"
    one, two, other = (Python().open(TASK, seed) for seed in (1, 1, 2))
    first = one.run([code])[0].text
    assert two.run([code])[0].text == first != other.run([code])[0].text
    one.run(["a = [1]"])
    fork = one.fork()
    one.run(["a.append(2)"])
    assert fork.run(["a"])[0].text == "[1]" and one.run(["a"])[0].text == "[1, 2]"
    assert fork.run(["random.random()"])[0].text == one.run(["random.random()"])[0].text
    for session in (one, two, other, fork):
        session.close()


def test_interpreters_of_parallel_episodes_are_apart():
    venv = ToolVectorEnv(SumTasks(), 3, tools=["python"], judge=None)
    venv.reset(seed=0)
    venv.step([f"<python>x = {i}</python>" for i in range(3)])
    observations = venv.step(["<python>x</python>"] * 3)[0]
    assert [o.rpartition(" ")[2] for o in observations] == ["0", "1", "2"]
    venv.close()


def test_an_error_in_the_code_is_an_observation():
    env = ToolUseEnv(SumTasks(), tools=["python"], judge="rules")
    env.reset(seed=0)
    observation, *_, info = env.step("<python>print('so far')\n1/0</python>")
    assert "so far" in observation and "ZeroDivisionError: division by zero (line 2)" in observation
    assert info["result"].error == "invalid"
    env.close()


@pytest.mark.parametrize("options", [{"timeout_s": float("nan")}, {"timeout_s": 0}, {"memory_mb": 1}, {"max_output": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="timeout_s is a finite number above 0"):
        Python(**options)
