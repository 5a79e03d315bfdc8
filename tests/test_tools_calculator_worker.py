"""The symbolic worker: interrupted calls shift no reply, results that numbers contradict are refused, options are checked."""

import math
import random
import signal
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from swirl_env.errors import ConfigError
from swirl_env.tools.calculator.goal import Goal
from swirl_env.tools.calculator.tool import Calculator
from swirl_env.tools.calculator.worker import client
from swirl_env.tools.calculator.worker.client import Service

CALCULATOR = Calculator(memory_mb=500)

ECHO = """
    import json, sys, time
    def reply(**fields): sys.stdout.write(json.dumps(fields) + "\\n"); sys.stdout.flush()
    reply(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        time.sleep(0.001)
        reply(id=request["id"], text=str(request["goal"][1][0]))
"""
"""A worker that replies to a number with the number, and starts in milliseconds."""


class Interrupted(BaseException):
    """What the signal raises: like KeyboardInterrupt no Exception, and not taken for one by pytest."""


@pytest.fixture
def interrupts() -> Iterator[random.Random]:
    """Makes SIGUSR1 raise wherever the program is, and gives a seeded generator for the moments."""

    def strike(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, strike)
    yield random.Random(0)
    signal.signal(signal.SIGUSR1, before)


def is_interrupted(action: Callable[[], object], after_s: float) -> bool:
    """Acts, is interrupted some time later, and returns whether that was before the end of the action."""
    timer = threading.Timer(after_s, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    done = False
    try:
        timer.start()
        action()
        done = True
        timer.join()
        time.sleep(0.001)  # the interrupt, if it did not come before
    except Interrupted:
        timer.join()
    return not done


def with_echo(monkeypatch: pytest.MonkeyPatch, folder: Path, source: str = ECHO) -> Service:
    (folder / "server.py").write_text(textwrap.dedent(source))
    monkeypatch.setattr(client, "_HERE", str(folder))
    return Service(64)


@pytest.mark.slow
def test_two_hundred_interrupts_leave_no_stale_reply(
    interrupts: random.Random, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = with_echo(monkeypatch, tmp_path)
    strikes = number = 0
    while strikes < 200:
        number += 2
        moment = interrupts.choice((0.0001, 0.001, 0.003)) * interrupts.random()
        strikes += is_interrupted(partial(service.ask, Goal("value", (number,)), 1.0), moment)
        assert service.ask(Goal("value", (number + 1,)), 1.0)["text"] == str(number + 1)
        assert number < 20_000
    service.stop()


def test_an_interrupt_in_a_calculation_costs_the_next_one_nothing(interrupts: random.Random) -> None:
    calculator = Calculator(memory_mb=499, timeout_s=5)
    assert calculator.run(["sqrt(2)"])[0].text == "1.41421356237"
    for number in (3, 5):
        assert is_interrupted(partial(calculator.run, [f"expand((a + b + c + d)**{number}00)"]), 0.05)
        for query in (number, number + 1):
            assert float(calculator.run([f"sqrt({query}) * 1"])[0].data["value"]) == pytest.approx(math.sqrt(query))
    calculator.close()


def test_a_reply_to_another_request_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    behind = ECHO.replace('id=request["id"]', 'id=request["id"] - 1')
    service = with_echo(monkeypatch, tmp_path, behind)
    assert [service.ask(Goal("value", (number,)), 1.0)["error"] for number in (1, 2)] == ["unavailable"] * 2
    service.stop()


@pytest.mark.parametrize(
    "option",
    [
        {"timeout_s": float("nan")},
        {"timeout_s": 0},
        {"timeout_s": math.inf},
        {"timeout_s": -1.0},
        {"memory_mb": 0},
        {"cache": -1},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="positive, finite timeout_s"):
        Calculator(**option)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("integrate(abs(sin(x)), (x, 0, 100))", 2 * 31 + 1 - math.cos(100 - 31 * math.pi)),
        ("integrate(abs(cos(x)), (x, 0, 50))", 2 * 16 + math.sin(50 - 16 * math.pi)),
        ("integrate(x*abs(sin(x)), (x, 0, 30))", None),
        ("integrate(abs(x), (x, -1, 2))", 2.5),
        ("integrate(sign(x), (x, -1, 3))", 2),
        ("integrate(x^2, (x, 0, 3))", 9),
        ("integrate(1/sqrt(x), (x, 0, 1))", 2),
        ("integrate(exp(-x^2), (x, -oo, oo))", math.sqrt(math.pi)),
    ],
)
def test_integrals_are_right_or_refused(query: str, value: float | None) -> None:
    (result,) = CALCULATOR.run([query])
    if value is None or result.error:
        assert result.error in ("invalid", "timeout")
        assert "abs(" in query  # the smooth ones have values
    else:
        assert float(Fraction(result.data["value"])) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("query", ["integrate(x^2, x)", "integrate(x*sin(x), x)", "integrate(1/(x^2 + 1), x)"])
def test_antiderivatives_are_given(query: str) -> None:
    assert CALCULATOR.run([query])[0].error is None


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("x = x + 1", "no solution"),
        ("x + y = 1; x + y = 2", "no solution"),
        ("sqrt(x) = -1", "no solution"),
        ("x*y = 1; x = 0", "no solution"),
        ("solve a*x = b for x", "x = b/a"),
        ("x^5 + a*x + 1 = 0", None),
        ("solve(x^5 + a*x + 1, x)", None),
        ("solve(x^7 + b*x^2 + c, x)", None),
    ],
)
def test_no_solution_is_said_only_if_there_is_none(query: str, text: str | None) -> None:
    (result,) = CALCULATOR.run([query])
    assert (result.text if result.error is None else None) == text
