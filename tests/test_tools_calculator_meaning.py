"""It computes what it fully understands and refuses the rest: kinds of notation in which a part could get lost."""

import pytest

from swirl_env.tools.calculator.tool import Calculator

CALCULATOR = Calculator(memory_mb=502)


def check(query: str, value: str | None) -> None:
    """Fails unless the reply is this value, or a refusal for None."""
    (result,) = CALCULATOR.run([query])
    if value is None:
        assert result.error == "invalid" and result.data == {}, f"{query!r} came out as {result.text!r}"
    else:
        assert result.error is None, f"{query!r} was refused: {result.text}"
        assert result.data["value"] == value


def kind(text: str) -> pytest.MarkDecorator:
    """Makes cases of lines ``query -> value``; a query without a value is to be refused."""
    cases = []
    for line in text.strip().splitlines():
        query, arrow, value = line.strip().rpartition(" -> ")
        cases.append((query, value) if arrow else (value.removesuffix(" ->"), None))
    return pytest.mark.parametrize(("query", "value"), cases)


@kind(
    """
    100 + 10% -> 110
    $50 - 20% -> 40
    50 minus 10% -> 45
    tax = 100 + 10% -> 110
    1 - 25% - 30% -> 0.45
    2 + (1%) -> 2.01
    3 + 10% + 20% -> 3.3
    (100 + 10%) * 2 -> 200.2
    10% + 20% -> 0.3
    100% - 20% -> 0.8
    20 - 10% * 2 -> 19.8
    50 + 20% of 50 -> 60
    20% off $50 -> 40
    17 % 5 -> 2
    $50 + 20% tip
    15% 80
    15 percent 80
    7 % -3
    5% tax on 40
    50 increased by 10%
    """
)
def test_percentages_are_fractions_but_for_a_bare_number_and_percentage(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    0 inches + 1 inch -> 1
    45 min + 75 min -> 120
    9 t-shirts / 3 -> 3
    5 red apples + 3 red apples -> 8
    1/2 cup + 1/4 cup -> 0.75
    2 feet * 12 inches/foot -> 24
    5 m^2 + 3 m^2 -> 8
    500 g + 200 g -> 700
    round(3.567 km, 1) -> 3.6
    5 km - 3 miles
    4 hours + 30 minutes
    3 feet + 6 inches
    3 apples + 2 oranges
    4 hours + 30
    100 - 3 apples
    1 hour / 5 minutes
    3 hours * 20 minutes
    60 miles/hour * 30 minutes
    60 mph * 30 minutes
    2 cups / 8 ounces
    max(3 km, 5 miles)
    t = 4 hours; t + 30
    """
)
def test_units_are_dropped_only_if_they_are_the_same(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    6 floors * 10 rooms/floor -> 60
    8 games x 2 hours per game -> 16
    8 hours * $15 per hour -> 120
    240 minutes / 20 minutes/water break -> 12
    15 pieces of laundry/room * 80 rooms -> 1200
    37 time-outs * 5 minutes/time-out -> 185
    60 minutes/hour * 5 -> 300
    $5/hour * 3 hours + $10 -> 25
    60 km/h * 2 h -> 120
    $5/hour * 3 hours + $10/hour
    3 boxes * 12 pencils + 5 pencils
    5 bags at $3 each
    """
)
def test_rates_cancel(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    100 km to miles
    90 minutes in hours
    30°C to F
    12 apples
    900 minutes =
    5 doubled
    10x12ft
    2h30m
    5 ft 6 in
    10am + 3
    2nd * 3
    """
)
def test_conversions_and_lone_quantities_are_refused(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    48/2 = 24 clips -> true
    12 hours / 3 = 4 -> true
    5 apples + 3 apples = 8 -> true
    48/2 = 25 -> false
    3 apples = 12
    14 hours = 14 * 60
    3x = 12 apples
    5 km > 3 miles
    Billy + Pilot = 350 + 126
    """
)
def test_words_in_equations_are_no_unknowns(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    2 thirds of 9 -> 6
    3 fifths + 1 fifth -> 0.8
    half of 1/2 -> 0.25
    10 minus twice 3 -> 4
    60 / half of 30 -> 4
    3/4 of 24 apples -> 18
    3 and 1/2 + 1 -> 4.5
    7 out of 10
    3 of 5
    10 / 25% of 40
    1/2 and 1/3
    10 / 1 1/2
    5 less than 10
    3 more than twice 4
    two thirds of 9
    3 to 4
    """
)
def test_fractions_and_portions_in_words(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    the sum of 10 and 1/2 -> 10.5
    the product of 1/2 and 1/4 -> 0.125
    average of 10, 20 and 30 -> 20
    the sum of 1,200 and 300 -> 1500
    5 + square root of 16 -> 9
    the square root of (16 + 9) -> 5
    the square root of 16 + 9
    the sum of 3 and 4 times 2
    average of 100,200,300
    the difference of 3 and 10
    The square root: 16
    """
)
def test_functions_in_words_reach_as_far_as_the_words_tell(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    $3 bn * 2 -> 6000000000
    $2.5k * 2 -> 5000
    €2m / 4 -> 500000
    10 / 2 million -> 0.000005
    2 lakh * 3 -> 600000
    3 hundred thousand -> 300000
    6 dozen * 12 eggs/dozen -> 72
    2 dozen + 6 -> 30
    3 dozen eggs -> 36
    2.5k * 2
    5 grand * 2
    4 dozen * 12
    5 dozen + 3 dozen
    """
)
def test_scales_belong_to_their_number(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    $5 + 25 cents -> 5.25
    75¢ + 25¢ -> 100
    $26 * 100 cents/dollar -> 2600
    5 USD + 3 USD -> 8
    $5 + €3
    $5 + 3 euros
    £5 + 50p
    $5 + 3 apples
    """
)
def test_currencies(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    45 degrees - 33 degrees -> 12
    180° - 60° - 50° -> 70
    sin(30 degrees) -> 0.5
    cos 60° -> 0.5
    20°C - 5°C -> 15
    37°C * 9/5 + 32
    90° + 1
    20 degrees Celsius + 5
    37 C * 9/5 + 32
    """
)
def test_degrees_are_a_unit(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    r"""
    \frac{d}{dx} x^2 -> 2*x
    \frac{d^2}{dx^2} x^3 -> 6*x
    \frac{d}{dx}(x^2 + 3x) -> 2*x + 3
    d/dx x^3 -> 3*x**2
    9{,}500 + 500 -> 10000
    9\,500 + 500 -> 10000
    \frac12 -> 0.5
    \frac{d}{dx} x^2 + 3
    \frac{dy}{dx}
    \frac123
    \sqrt16
    0.\overline{3}
    5 \pm 2
    """
)
def test_latex(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    lambda x: x**2
    lambda: 5
    [0] * 10**10
    [1, 2] + [3]
    (1, 2) * 3
    x[0]
    1 if 2 else 3
    sum(k^2 for k in range(1, 6))
    3 and 4
    1j * 2
    x += 1
    [(2 + 3) * 4] / 2 -> 10
    x = 5; x ** 2 -> 25
    """
)
def test_python_is_no_arithmetic(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    0x1F
    0x10
    0b101
    1.2e3x
    1.234,5
    47/6=7 r5
    17 / 5 = 3 R 2
    7 remainder 5
    5!!
    0.333...
    1.5e3 * 2 -> 3000
    10x10 -> 100
    """
)
def test_numbers_in_other_notations(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    2x + 3x -> 5*x
    2*m + 3*m -> 5*m
    diff(3m^2, m) -> 6*m
    2m + 3m
    10k * 2
    rate * 2 / distance
    3 + total
    2x + 3 =
    x^5 + a*x + 1 = 0
    solve x^5 + a*x + 1 = 0 for x
    solve(x^6 + a*x + 2, x)
    """
)
def test_a_reply_holds_no_symbol_that_was_no_variable(query: str, value: str | None) -> None:
    check(query, value)


@kind(
    """
    prod(k, k, 1, 5) -> 120
    prod(k, (k, 1, 5)) -> 120
    sum(k, k, 1, 5) -> 15
    prod([2, 3]) -> 6
    """
)
def test_ranges_of_sums_and_products(query: str, value: str | None) -> None:
    check(query, value)
