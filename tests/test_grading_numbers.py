"""Numbers in answers: a number counts if nothing around it changes it. Compared with math-verify on a table of answers."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl_env.grading import grade, numeric_equal, numeric_value
from swirl_env.number_text import MAX_CHARS, read_number
from swirl_env.types import Task

TABLE = [json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text("ascii").splitlines()]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("negative 12", -12),
        ("Negative $3", -3),
        ("minus 12", -12),
        ("−12", -12),
        ("it is minus 4.5", Fraction(-9, 2)),
        ("– 7", -7),
    ],
)
def test_signs_in_words_and_dashes(text, value):
    assert numeric_value(text) == value
    assert not numeric_equal(text, str(-value))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "half of 12",
            "twice 12",
            "12 less than",
            "three times 12",
            "12 squared",
            "5!",
            "12 !",
            "(5)!",
            "12x",
            "12 n",
            "12/x",
            "√12",
        ),
        *(
            "12 halves",
            "3 quarters",
            "12-fold",
            "12 plus",
            "12ths",
            "square of 12",
            "one of 12",
            "2(12)",
            "log 12",
            "12 base eight",
        ),
        *(
            "12 per hundred",
            "12*",
            "0.333...",
            "0.3…",
            "12 below zero",
            "12½ dozen or so",
            "the reciprocal of 12",
            "12 thousandths",
            "less 12",
            "12₂",
            "f'(12)",
            "12 raised to the third",
            "12 and a quarter",
            "12 MM",
            "12, ...",
            "all but 12",
            "could be 12",
            "12 by two",
        ),
    ],
)
def test_a_word_or_sign_that_changes_a_number_is_not_dropped(text):
    assert numeric_value(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 dozen", 144),
        ("12k", 12_000),
        ("$12M", 12 * 10**6),
        ("3 Thousand", 3_000),
        ("2 and a half", Fraction(5, 2)),
        ("12万", 120_000),
    ],
)
def test_a_unit_of_counting_belongs_to_the_number(text, value):
    assert numeric_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "x = 3 or x = 12",
            "x = 12 or x = 3",
            "x=3, y=12",
            "x = 3; x = 12",
            "either 12",
            "12 or so",
            "10-12",
            "between 10 and 12",
        ),
        *(
            "not 12",
            "it isn't 12",
            "12 is wrong",
            "❌ 12",
            "maybe 12",
            "x = 3\nx = 12",
            "over 12",
            "at least 12",
            "up to 12",
            "12+",
        ),
        *(
            "about 12",
            "~12",
            "≈ 12",
            "12ish",
            "approximately 12",
            "just under 12",
            "12 and up",
            "a minimum of 12",
            "≥ 12",
            "x > 12",
        ),
    ],
)
def test_alternatives_comparisons_and_approximations_are_no_number(text):
    assert numeric_value(text) is None


@pytest.mark.parametrize(
    "text", ["2x = 12", "x/2 = 12", "total / 2 = 12", "-x = 12", "x^2 = 12", "|x| = 12", "half the total = 12", "x! = 12"]
)
def test_an_equation_that_is_still_to_be_solved_is_no_number(text):
    assert numeric_value(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "x = 12",
        "x_1 = 12",
        "$x = 12$",
        "Total = 12",
        "48/4 = 12",
        "2 x 6 = 12",
        "5 apples + 7 apples = 12 apples",
        "2x = 24, so x = 12",
    ],
)
def test_what_an_equals_sign_states_is_read(text):
    assert numeric_value(text) == 12


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9{,}500", 9500), ("9\\,500", 9500), ("9\u202f500", 9500), ("9\u2009500,5", Fraction(19001, 2)), ("9'500", 9500),
        ("1.234.567", 1_234_567), ("1.234,5", Fraction(2469, 2)), ("12,34,567", 1_234_567), ("９，５００", 9500),
        ("1,234.5", Fraction(2469, 2)),
        ("\\frac12", Fraction(1, 2)), ("2\\frac12", Fraction(5, 2)), ("-\\dfrac{3}{4}", Fraction(-3, 4)),
        ("1.2\\times10^{4}", 12_000),
        ("1.2 × 10⁻²", Fraction(3, 250)), ("1.2*10**4", 12_000), ("90^\\circ", 90), ("90^{\\circ}", 90), ("\\left(7\\right)", 7),
        ("\\boxed{\\text{7}}", 7), ("12\\text{ cm}", 12), ("\\boxed{1\\frac{1}{2}}", Fraction(3, 2)),
    ],
)  # fmt: skip
def test_digits_grouped_and_set_in_any_way_are_read(text, value):
    assert numeric_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "*12*",
        "**12**",
        "_12_",
        "`12`",
        "✅ 12",
        "12 🎉",
        "\u200b12\ufeff",
        "1️⃣2️⃣",
        "₱12",
        "₿ 12",
        "<b>12</b>",
        "• 12",
        "「12」",
        "<answer>12</answer>",
        "12″",
        "12, where x is the width",
        "答案：12。",
        "answer — 12",
        "« 12 »",
        "US$12",
        "R$ 12",
    ],
)
def test_marks_around_a_number_make_no_difference(text):
    assert numeric_value(text) == 12


@pytest.mark.parametrize("text", ["3,5", "1 000", "1,00", "12,5", "1_000", "3\\,5", "9~500"])
def test_digits_that_could_be_two_numbers_are_none(text):
    assert numeric_value(text) is None


def test_a_second_table_in_the_style_of_models() -> None:
    """Signs, fractions, scales, hedges, labels, LaTeX, Markdown and scripts around a number, right or wrong as a reader says."""
    rows = [json.loads(line) for line in (Path(__file__).parent / "number_answers.jsonl").read_text("ascii").splitlines()]
    assert len(rows) > 800
    assert [row for row in rows if numeric_equal(row["answer"], row["gold"]) != row["right"]] == []


@pytest.mark.parametrize(
    "text",
    [
        "3 x 102",
        "1 x 10-2",
        "12 to one",
        "12 could be",
        "12xy",
        "12ab",
        "x_{12}",
        "twice x equals 12",
        "sin x = 12",
        "x(3) = 12",
        "!12",
    ],
)
def test_a_number_glued_to_variables_or_in_an_equation_is_none(text):
    assert numeric_value(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("f(x) = 12", 12), ("f(3) = -12", -12), ("P(A) = 0.5", Fraction(1, 2)), ("it equals 12", 12), ("...12", 12)],
)
def test_labels_of_functions_and_dots_are_read_past(text, value):
    assert numeric_value(text) == value


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['answer']!a}-{row['gold']}")
def test_the_table_of_answers(row):
    assert numeric_equal(row["answer"], row["gold"]) == row["right"]


def test_how_math_verify_differs():
    """The figures of docs/tasks.md: what math-verify 0.9 accepts or refuses otherwise, by the kind of answer."""
    assert len(TABLE) >= 300
    accepts = Counter(row["kind"] for row in TABLE if row["math_verify"] and not row["right"])
    refuses = Counter(row["kind"] for row in TABLE if row["right"] and not row["math_verify"])
    assert (accepts.total(), refuses.total()) == (130, 79)


NUMBERS = st.fractions(min_value=0, max_value=10**6, max_denominator=1).map(int)
AROUND = st.sampled_from(
    ["{}", "${}", "**{}**", "The answer is {}.", "x = {}", "\\boxed{{{}}}", "{} dollars", "{} km/h", "✅ {}", "({})", "${}$"]
)
CHANGED = st.sampled_from(
    [
        "half of {}",
        "twice {}",
        "{} dozen",
        "over {}",
        "{}x",
        "{}!",
        "not {}",
        "x = 0 or x = {}",
        "{} or so",
        "{}²",
        "2x = {}",
        "{} hundred",
        "√{}",
    ]
)


@given(NUMBERS, AROUND)
def test_a_number_with_nothing_but_dressing_is_that_number(number, form):
    assert numeric_value(form.format(number)) == number
    assert numeric_value(form.format(f"{number:,}")) == number


@given(NUMBERS.filter(bool), CHANGED)
def test_a_changed_number_is_never_the_number(number, form):
    assert not numeric_equal(form.format(number), str(number))


PIECES = st.lists(
    st.sampled_from(
        [
            "12",
            "x",
            "=",
            "$",
            "*",
            "\\frac",
            "{",
            "}",
            " ",
            "-",
            ",",
            ".",
            "or",
            "½",
            "²",
            "\u202f",
            "%",
            "(",
            "!",
            "\\",
            "k",
            "_",
            "`",
        ]
    )
)


@given(st.one_of(st.text(st.characters(exclude_categories=()), max_size=1_100), PIECES.map("".join)))
def test_reading_is_total_and_exact(text):
    read = read_number(text)
    assert read is None or (isinstance(read[0], Fraction) and len(text) <= MAX_CHARS)
    assert numeric_equal(text, text) == (read is not None)


def test_a_gold_answer_that_states_no_number_can_be_repeated():
    task = Task("t", "q", "3 or 4", grading="number")
    assert grade(task, "3 or 4").correct and not grade(task, "3").correct
