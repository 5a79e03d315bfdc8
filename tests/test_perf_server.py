"""The least time of the server benchmark's baseline: hand-made schedules, and bounds that any schedule keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl_env.benchmarks.perf.server import least_time


@pytest.mark.parametrize(
    ("delays", "episodes", "steps", "in_flight", "seconds"),
    [
        ([1, 2, 3, 4], 4, 1, 2, 6),  # 1, then 3 | 2, then 4
        ([1, 1, 1, 1], 1, 4, 16, 4),  # steps of one episode follow one another
        ([3, 1, 1, 1], 2, 2, 2, 4),  # the short episode ends at 2, the long one's second call runs from 3 to 4
        ([5, 1, 1], 3, 1, 3, 5),
        ([], 0, 4, 16, 0),
    ],
)
def test_the_least_time_of_a_schedule_done_by_hand(delays, episodes, steps, in_flight, seconds):
    assert least_time(delays, episodes, steps, in_flight) == seconds


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 6), st.data())
def test_no_schedule_is_shorter_than_its_work_over_the_workers_or_longer_than_twice_that(episodes, steps, in_flight, data):
    n = episodes * steps
    delays = data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    least = least_time(delays, episodes, steps, in_flight)
    assert least >= max(sum(delays) / min(in_flight, episodes), max(delays))
    assert least <= sum(delays) / in_flight + steps * max(delays)  # Graham's bound: work, and the longest chain
