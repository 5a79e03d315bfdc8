"""The simulated plan: arithmetic by hand, and queues whose waiting times are known."""

from dataclasses import replace

import pytest

from swirl_env.benchmarks.places import place
from swirl_env.benchmarks.plan import __main__ as plan
from swirl_env.benchmarks.plan.hardware import H100, QWEN_7B, Gpu, Model, Replica, training_s
from swirl_env.benchmarks.plan.setups import best, gains, of_gpus, one_node, two_cores
from swirl_env.benchmarks.plan.simulation import Clock, Costs, Setup, Station, Work, simulate

COSTS = Costs(env_step=100e-6, call=2e-3, episode=60e-6)
NOTHING = Costs(0.0, 0.0, 0.0)
SLOW = Gpu("slow", 1.0, 1e9, 1e9, 1.0, 1.0)


def test_memory_and_time_are_what_one_computes_by_hand():
    assert QWEN_7B.weights_gb == pytest.approx(15.2) and QWEN_7B.training_gb == pytest.approx(121.6)
    assert QWEN_7B.kv_bytes == 2 * 28 * 4 * 128 * 2 == 57_344
    replica = Replica(QWEN_7B, H100, 1, 3_000)
    assert replica.slots == min(256, int((72 - 15.2) * 1e9 / (3_000 * 57_344)))
    assert replica.write_s(1) == pytest.approx((15.2e9 + 3_000 * 57_344) / (0.6 * 3.35e12))
    assert replica.read_s(1_000) == pytest.approx(2 * 7.6e9 * 1_000 / (0.4 * 989e12))
    assert training_s(QWEN_7B, H100, 4, 1e6) == pytest.approx(8 * 7.6e9 * 1e6 / (4 * 0.4 * 989e12))


@pytest.mark.parametrize(("jobs", "servers"), [(1, 1), (7, 1), (7, 3), (9, 3), (2, 5)])
def test_equal_jobs_take_as_many_rounds_as_they_must(jobs, servers):
    clock, station = Clock(), Station("s", servers)

    def job():
        yield station, Work(2.0)

    for _ in range(jobs):
        clock.start(job())
    clock.run(lambda: False)
    assert clock.now == 2.0 * -(-jobs // servers) and station.busy_s == 2.0 * jobs


def serial(staleness=0, update_s=0.0, policies=1):
    """One sequence at a time, no judge, tools that take no time."""
    tiny = Model("tiny", 1e6, 1, 1, 1)
    replica = Replica(tiny, SLOW, 1, 1, most_slots=1)
    return Setup("serial", replica, policies, None, 0, 1, update_s, 4, 8, staleness, tool_s=1e-9)


def test_in_turn_an_update_waits_for_its_episodes_and_they_for_it():
    alone = simulate(serial(), NOTHING, updates=6).seconds
    assert simulate(serial(update_s=alone), NOTHING, updates=6).seconds == pytest.approx(2 * alone)
    # One batch ahead, both go on at once: only the first batch and the last update have nobody next to them.
    ahead = simulate(serial(staleness=1, update_s=alone), NOTHING, updates=6)
    assert ahead.seconds == pytest.approx(alone * 7 / 6, rel=0.15)
    assert ahead.busy["training"] == pytest.approx(6 / 7, rel=0.15)


def test_what_is_busy_all_the_time_is_the_bottleneck():
    assert simulate(serial(), NOTHING).busy["generation"] == pytest.approx(1.0, abs=0.01)
    results = gains(serial(), NOTHING)
    assert max(results, key=results.get) == "generation" and results["generation"] == pytest.approx(2, rel=0.1)
    slow_driver = replace(COSTS, episode=10.0)
    results = gains(serial(), slow_driver)
    assert max(results, key=results.get) == "driver"


def test_a_split_uses_all_devices_and_none_better_was_tried():
    setup, _ = best(one_node(), COSTS)
    assert setup.gpus == 8
    others = [simulate(other, COSTS, updates=5).seconds for other in one_node()]
    assert simulate(setup, COSTS, updates=5).seconds == min(others)
    assert not two_cores().trainer_gpus and of_gpus("x", QWEN_7B, 2, 3, 4, 8, 10, 1).gpus == 22


def test_the_report_names_a_bottleneck_of_each_size_and_replaces_only_its_part_of_the_page(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "measure", lambda episodes: COSTS)
    monkeypatch.setattr(plan, "cluster", one_node)  # 64 GPUs take seconds
    page = tmp_path / "page.md"
    page.write_text(f"before\n{place('figures', 'old')}after\n")
    assert plan.main(["--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("the bottleneck is **") + text.count("no single thing") == 3


def test_a_page_that_has_no_figures_is_refused_before_anything_is_simulated(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plan, "measure", lambda episodes: pytest.fail("measured for nothing"))
    (tmp_path / "other.md").write_text("nothing")
    for page, says in (("other.md", "has no figures to replace"), ("no.md", "cannot be read")):
        with pytest.raises(SystemExit):
            plan.main(["--page", str(tmp_path / page)])
        assert says in capsys.readouterr().err
