"""Input that must neither run code, nor hang, nor exhaust memory, and what becomes of the worker on the way."""

import contextlib
import copy
import gc
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl_env.tools.calculator.goal import plan
from swirl_env.tools.calculator.rational import Irrational
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.tool import Calculator, in_process
from swirl_env.types import ToolResult

SLOW = "expand((a+b+c+d)**300)"


def expression(row: dict[str, Any]) -> str:
    repeat = row.get("repeat")
    return row["expression"] if repeat is None else repeat["prefix"] + repeat["unit"] * repeat["times"] + repeat["suffix"]


def equal(text: str, wanted: str) -> bool:
    try:
        return abs(Fraction(text) - Fraction(wanted)) <= Fraction(1, 10**9) * max(1, abs(Fraction(wanted)))
    except ValueError:
        return text == wanted


def fault(row: dict[str, Any], result: ToolResult) -> str:
    """Returns what is wrong with a reply, empty if nothing is."""
    if row["must"] == "error" and result.error is None:
        return "no error"
    if result.error is None and "value" in row and not equal(result.data["value"], row["value"]):
        return "wrong value"
    if any(leak in result.text or leak in repr(result.data) for leak in row.get("must_not_contain", [])):
        return "leak"
    if "canary" in row and Path(row["canary"]).exists():
        return "code ran"
    return "too long" if len(result.text) > 10_000 else ""


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def processes() -> set[int]:
    """Children of this process and theirs."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    collected, todo = set(), [os.getpid()]
    while todo:
        fresh = children.get(todo.pop(), [])
        collected.update(fresh)
        todo += fresh
    return collected


def gone(pids: set[int]) -> bool:
    """Whether all of these processes end soon."""
    for _ in range(100):
        if not pids & processes() and not any(_runs(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
@pytest.mark.slow
def test_the_shared_hostile_inputs(calculator_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [json.loads(line) for line in (calculator_dir / "hostile_shared.jsonl").read_text("utf-8").splitlines()]
    before, resident = processes(), memory()
    calculator = Calculator(memory_mb=511)
    faults = {}
    for row in rows:
        problem = fault(row, calculator.run([expression(row)])[0])
        if problem:
            faults[row["id"]] = problem
        if calculator.run(["2*3"])[0].text != "6":
            faults[row["id"]] = "the next call failed"
    assert len(rows) > 100
    assert faults == {}
    assert calculator.run(["2pi"])[0].text == "6.28318530718"
    assert memory() - resident < 100e6
    started = processes() - before
    assert started
    calculator.close()
    assert gone(started)


PIECES = (
    "1 2.5 1,000 x y i e pi + - * / ^ ** % ! ( ) [ ] { } , = < >= | √ ° ... // mod of off choose sqrt( sin( log_ solve( "
    "diff( integrate( limit( Sum( max( gcd( \\frac{ \\sqrt \\sum_{ \\int dx ; \n $ # : .subs( .evalf() apples hours ½ ² ∞ -> ?"
)
SOUP = st.lists(st.sampled_from(PIECES.split(" ")), max_size=14)


@given(st.one_of(st.text(max_size=80), SOUP.map(" ".join), SOUP.map("".join)))
@settings(max_examples=250, deadline=None)
def test_any_text_gets_a_reply(text: str) -> None:
    with contextlib.suppress(CalcError, Irrational, RecursionError):
        in_process(plan(text))  # any other exception is a fault, which run() would turn into a refusal
    (result,) = QUICK.run([text])
    assert result.error in (None, "invalid", "timeout", "limit")
    assert 0 < len(result.text) <= 2100
    assert result.text.isprintable()
    assert result.error is not None or isinstance(result.data["value"], str)
    json.dumps(result.data)


QUICK = Calculator(timeout_s=0.2, memory_mb=510)


@pytest.mark.parametrize(
    "unit", ["(", "-", "1/(1+", "sqrt(", "2**", "2^-", "|", "x+", "5!", "\\frac{1}{", "1,000", "1 ", "x = ", "%", "e(", "9" * 99]
)
def test_repeats_that_pass_the_length_limit(unit: str) -> None:
    text = (unit * 10_000)[:9000]
    for query in (text, text + "1", text + "1" + ")" * 900):
        assert CALCULATOR.run([query])[0].text


CALCULATOR = Calculator(memory_mb=509)


def test_one_slow_query_costs_the_others_nothing() -> None:
    results = CALCULATOR.run(["sqrt(2)", SLOW, "1+1", "diff(x^2, x)"])
    assert [result.error for result in results] == [None, "timeout", None, None]
    assert [results[i].text for i in (0, 2, 3)] == ["1.41421356237", "2", "2*x"]


def test_a_timeout_is_kept_unless_the_start_of_the_worker_took_from_its_time() -> None:
    cold = Calculator(timeout_s=0.2, memory_mb=503)
    for kept in (0, 1, 1):
        assert cold.run([SLOW])[0].error == "timeout"
        assert cold._worked.cache_info().currsize == kept
    cold.close()


def test_memory_is_bounded() -> None:
    small = Calculator(timeout_s=20, memory_mb=160)
    assert small.run(["expand((a+b+c+d+f+g)**60)"])[0].error == "limit"
    assert small.run(["expand((x+1)^2)"])[0].text == "x**2 + 2*x + 1"
    small.close()


@linux
def test_a_killed_worker_is_replaced() -> None:
    calculator = Calculator(timeout_s=5, memory_mb=508)
    before = processes()
    assert calculator.run(["diff(x^3, x)"])[0].text == "3*x**2"
    for pid in processes() - before:
        os.kill(pid, signal.SIGKILL)
    assert calculator.run(["diff(x^4, x)"])[0].text == "4*x**3"
    calculator.close()
    assert calculator.run(["diff(x^5, x)"])[0].text == "5*x**4"
    calculator.close()


@linux
def test_the_worker_ends_with_its_last_calculator() -> None:
    before = processes()
    first, second = Calculator(memory_mb=507), Calculator(memory_mb=507)
    assert first.run(["sqrt(3)"])[0].text == second.run(["sqrt(3)"])[0].text == "1.73205080757"
    started = processes() - before
    assert len(started) == 2  # one keeper and one solver for both
    del first, second
    gc.collect()
    assert gone(started)


@linux
@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)", "raise SystemExit(3)"])
def test_no_process_is_left_behind(end: str) -> None:
    code = (
        "import os; from swirl_env.tools.calculator.tool import Calculator; c = Calculator(); c.run(['sqrt(2)']);"
        f"print(c._service._process.pid, flush=True); {end}"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert gone({int(done.stdout)})


def test_threads_agree_with_one() -> None:
    queries = [f"{i}*7+3" for i in range(20)] + [f"diff(x^{i}, x)" for i in range(2, 12)] + ["1/0", "x^2 = 2", "sqrt(5)", "3 +"]
    alone = CALCULATOR.run(queries)
    fresh = Calculator(memory_mb=506)
    collected: dict[int, list[ToolResult]] = {}

    def work(name: int) -> None:
        collected[name] = [fresh.run([query])[0] for query in queries]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fresh.close()
    assert [collected[name] for name in range(4)] == [alone] * 4


def _in_child(calculator: Calculator, queue: Any) -> None:
    queue.put(calculator.run(["sqrt(7)"])[0].text)


@linux
def test_a_forked_process_gets_its_own_worker() -> None:
    calculator = Calculator(memory_mb=505)
    assert calculator.run(["sqrt(6)"])[0].text == "2.44948974278"
    pid = calculator._service._process.pid  # type: ignore[union-attr]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(calculator, queue))
    child.start()
    assert queue.get(timeout=60) == "2.64575131106"
    child.join()
    assert calculator.run(["sqrt(8)"])[0].text == "2.82842712475"
    assert calculator._service._process.pid == pid  # type: ignore[union-attr]
    calculator.close()


def test_it_can_be_copied_and_pickled() -> None:
    for copied in (pickle.loads(pickle.dumps(CALCULATOR)), copy.deepcopy(CALCULATOR)):
        assert copied.run(["2+2"])[0].text == "4"
        assert copied.memory_mb == 509


def test_without_a_worker_plain_arithmetic_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    calculator = Calculator(memory_mb=504)
    results = calculator.run(["2+2", "sqrt(2)", "3+3"])
    assert [result.error for result in results] == [None, "unavailable", None]
