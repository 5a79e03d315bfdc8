"""Word problems, answered by calculating: GSM8K and SVAMP, with gold plans from their annotations."""

from __future__ import annotations

import operator
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from swirl_env.errors import ConfigError
from swirl_env.grading import numeric_value
from swirl_env.tasks.files.answers import read_golds
from swirl_env.tasks.files.layouts import join_body, other_columns
from swirl_env.tasks.files.question_set import QuestionSet, Table, require_answers
from swirl_env.tasks.files.rows import Location, Row, read_rows
from swirl_env.types import CALCULATOR, PlanStep, Task

_GSM8K_COLUMNS = frozenset({"id", "question", "answer", "solution"})
_SVAMP_COLUMNS = frozenset(
    {"id", "ID", "Body", "Question", "question", "Equation", "solution", "Answer", "answer", "Type", "type"}
)
_ANNOTATION = re.compile(r"<<([^<>]*)=([^<>=]*)>>")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_TOKEN = re.compile(r"\d+\.?\d*|\.\d+|[-+*/()]")
_MAX_EXPRESSION = 300
_SUM: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {"+": operator.add, "-": operator.sub}
_PRODUCT: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {"*": operator.mul, "/": operator.truediv}


def arithmetic_value(expression: str) -> Fraction | None:
    """Returns the exact value of ``+ - * /``, parentheses and decimals; None for anything else and for division by zero."""
    plain = expression.replace(",", "").replace(" ", "")
    tokens = _TOKEN.findall(plain)
    if not tokens or len(plain) > _MAX_EXPRESSION or "".join(tokens) != plain:
        return None
    rest = iter([*tokens, ""])
    try:
        value, after = _sum(rest, next(rest))
    except (ValueError, ZeroDivisionError):
        return None
    return None if after else value


def _sum(tokens: Iterator[str], token: str) -> tuple[Fraction, str]:
    value, token = _product(tokens, token)
    while token in _SUM:
        right, after = _product(tokens, next(tokens))
        value, token = _SUM[token](value, right), after
    return value, token


def _product(tokens: Iterator[str], token: str) -> tuple[Fraction, str]:
    value, token = _factor(tokens, token)
    while token in _PRODUCT:
        right, after = _factor(tokens, next(tokens))
        value, token = _PRODUCT[token](value, right), after
    return value, token


def _factor(tokens: Iterator[str], token: str) -> tuple[Fraction, str]:
    if token in _SUM:
        value, after = _factor(tokens, next(tokens))
        return (-value if token == "-" else value), after
    if token == "(":
        value, closing = _sum(tokens, next(tokens))
        if closing != ")":
            raise ValueError(closing)
        return value, next(tokens)
    # An operator or the end in place of a number is a ValueError too.
    return Fraction(token.rstrip(".")), next(tokens)


def plan_from_annotations(solution: str, question: str = "") -> tuple[PlanStep, ...]:
    """Reads GSM8K's ``<<48/2=24>>`` as calculator calls; no plan at all if one of them does not hold.

    A step needs the latest earlier step whose result it uses: a number of its expression that is such a result and does not
    stand in the question, from which the number could have come too.
    """
    in_question = {arithmetic_value(number) for number in _NUMBER.findall(question)}
    steps: list[PlanStep] = []
    results: dict[Fraction, int] = {}
    for written, result in _ANNOTATION.findall(solution):
        # Two annotations of the set divide with "//", both without a remainder.
        expression = written.replace("//", "/")
        value = arithmetic_value(expression)
        if value is None or value != arithmetic_value(result):
            return ()
        numbers = _NUMBER.findall(expression)
        if len(numbers) < 2:
            # A number alone, <<40=40>>, only introduces a value; there is nothing to calculate.
            continue
        used = {arithmetic_value(number) for number in numbers} - in_question
        needs = sorted({results[number] for number in used if number is not None and number in results})
        results[value] = len(steps)
        steps.append(PlanStep(CALCULATOR, expression.strip(), _written(value), tuple(needs)))
    return tuple(steps)


def _written(value: Fraction) -> str:
    """Writes a value as the calculator does, so that ``10.00`` and ``10`` are one result: decimal if that is exact."""
    for places in range(20):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = f"{abs(scaled.numerator):0{places + 1}d}"
            whole, part = digits[: len(digits) - places], digits[len(digits) - places :]
            return f"{'-' if value < 0 else ''}{whole}{'.' if part else ''}{part}"
    return str(value)


class NumberSet(QuestionSet[bool]):
    """Base of the sets that are answered by calculating.

    Args:
        split: which part; None takes ``test``.
        data_dir: folder that holds the set's folder; None takes the environment variable ``SWIRL_DATA_DIR``.
        limit: only the first questions.
        hub: True downloads the set with the `datasets` library, a name (``"owner/name"`` or ``"owner/name:config"``) another
            copy of it. Without it nothing is ever downloaded.
        planned: leave out the questions without a gold plan, which a scripted expert cannot follow.
        skip: how many questions at the beginning to leave out, e.g. those of demonstrations; `limit` counts from there.
    """

    tools = ("calculator",)
    max_steps = 11
    """The paper's ten calculations and the answer."""
    preferred = ("test",)
    corpus = None

    def __init__(
        self,
        split: str | None = None,
        data_dir: str | None = None,
        limit: int | None = None,
        hub: bool | str = False,
        planned: bool = False,
        skip: int = 0,
    ) -> None:
        super().__init__(split, data_dir, limit, hub, skip)
        self.planned = planned

    def options(self) -> bool:
        """Returns whether questions without a plan are left out."""
        return self.planned

    @classmethod
    def read_table(cls, location: Location, split: str, options: bool) -> Table:
        """Opens a question file."""

        def read(row: Row, index: int) -> Task:
            try:
                return cls.read_task(row, index, split)
            except (KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"{location}, row {index + 1}: expected a question of {cls.name} with its answer; got the keys {sorted(row)}."
                ) from error

        rows = read_rows(location)
        fix = f"Expected the columns of {cls.name}; read other files with make_tasks('jsonl')."
        require_answers(rows, lambda row: bool(read(row, 0).answer), location, fix)
        return Table(rows, read, (lambda row: bool(read(row, 0).plan)) if options else None)

    @classmethod
    @abstractmethod
    def read_task(cls, row: Row, index: int, split: str) -> Task:
        """Reads a row."""


class GSM8K(NumberSet):
    """GSM8K (Cobbe et al. 2021): grade-school maths; splits ``test`` (default) and ``train``; options as `NumberSet`.

    Its solutions mark their calculations, ``<<48/2=24>>``: they become the plan of a task.
    """

    name = "gsm8k"
    files = {"test": ("test", "test-00000-of-00001"), "train": ("train", "train-00000-of-00001")}
    hub_name = "openai/gsm8k:main"
    hub_splits = {"test": "test", "train": "train"}
    homepage = "https://github.com/openai/grade-school-math"

    @classmethod
    def read_task(cls, row: Row, index: int, split: str) -> Task:
        """Reads a row; in the official files the answer follows ``####`` at the end of the solution."""
        golds, _ = read_golds(row, cls.name)
        solution, _, final = (golds or [""])[0].rpartition("####")
        solution = row.get("solution") or solution
        return Task(
            id=str(row.get("id") or f"gsm8k-{split}-{index}"),
            question=row["question"].strip(),
            answer=final.strip().replace(",", "") or None,
            grading="number",
            plan=plan_from_annotations(solution, row["question"]),
            meta={**other_columns(row, _GSM8K_COLUMNS), "split": split, "solution": solution.strip()},
        )


class SVAMP(NumberSet):
    """SVAMP (Patel et al. 2021): word problems with one unknown; splits ``test`` (default), ``train``; options: `NumberSet`.

    The official file, read as ``test``, has all 1,000 problems; the hub's copy has 700 in ``train`` and 300 in ``test``.
    """

    name = "svamp"
    files = {"test": ("test", "SVAMP"), "train": ("train",)}
    hub_name = "ChilleD/SVAMP"
    hub_splits = {"test": "test", "train": "train"}
    homepage = "https://github.com/arkilpatel/SVAMP"

    @classmethod
    def read_task(cls, row: Row, index: int, split: str) -> Task:
        """Reads a row of the official layout (``Body``, ``Question``, ``Equation``, ``Answer``) or of this project's."""
        golds, _ = read_golds(row, cls.name)
        answer = _plain((golds or [""])[0])
        equation = str(row["Equation"] if "Equation" in row else row.get("solution", ""))
        kind = row.get("Type") or row.get("type")
        number = row.get("id") or f"svamp-{row.get('ID', index)}"
        return Task(
            id=str(number),
            question=_question(row),
            answer=answer or None,
            grading="number",
            plan=_plan_from_equation(equation, answer),
            meta={
                **other_columns(row, _SVAMP_COLUMNS),
                "split": split,
                "equation": equation.strip(),
                **({"type": kind} if kind else {}),
            },
        )


def _question(row: Row) -> str:
    if "Body" not in row:
        return str(row["question"]).strip()
    return join_body(row["Body"], row["Question"])


def _plain(number: str) -> str:
    """Writes ``51.0`` as ``51``."""
    return re.sub(r"(\d)\.0+(?!\d)", r"\1", number.strip())


def _plan_from_equation(equation: str, answer: str) -> tuple[PlanStep, ...]:
    expression = _plain(equation).removeprefix("( ").removesuffix(" )") if _wrapped(equation) else _plain(equation)
    value = arithmetic_value(expression)
    if value is None or value != numeric_value(answer) or len(_NUMBER.findall(expression)) < 2:
        return ()
    return (PlanStep(CALCULATOR, " ".join(expression.split()).replace("( ", "(").replace(" )", ")"), answer),)


def _wrapped(expression: str) -> bool:
    """Whether one pair of parentheses holds the whole expression."""
    text, depth = expression.strip(), 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return char == ")" and at == len(text) - 1
    return False
