"""The performance suite runs: every benchmark, tiny, writes its figures. How fast anything is, is not tested here."""

import msgspec
import pytest

from swirl_env.benchmarks.perf import __main__ as perf
from swirl_env.benchmarks.perf.timing import Report, Row, row

NEEDS_WEIGHTS = {"train", "generate", "likelihood"}
"""Benchmarks of real language models, too slow for a test even when tiny."""


NEEDS_A_BROWSER = {"viewer"}
INSTALLS = {"peers"}
"""See test_perf_peers.py."""
STARTS_RAY = {"ray"}
"""See test_cluster_ray.py."""
ELSEWHERE = NEEDS_WEIGHTS | NEEDS_A_BROWSER | INSTALLS | STARTS_RAY


@pytest.mark.parametrize("name", sorted(perf.BENCHMARKS.keys() - ELSEWHERE))
def test_every_benchmark_runs_and_writes_its_figures(name, tmp_path, capsys):
    path = tmp_path / "deep" / "figures.json"
    assert perf.main([name, "--quick", "--json", str(path)]) == 0
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    assert report.name == name and report.rows and report.machine["quick"] is True
    assert all(0 <= r.p50 <= r.p99 and r.n > 0 for r in report.rows if "over the tool" not in r.what)
    assert name == "corpus" or any(r.ratio is not None and r.ratio > 0 and r.baseline for r in report.rows)
    assert any(r.bar and r.met is not None for r in report.rows)
    shown = capsys.readouterr().out
    assert name in shown and "p99" in shown and str(path) in shown


@pytest.mark.slow
def test_the_viewer_is_measured_by_the_browser_itself(tmp_path, capsys):
    path = tmp_path / "viewer.json"
    code = perf.main(["viewer", "--quick", "--json", str(path)])
    if code == 2:
        pytest.skip(capsys.readouterr().err)
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    assert code == 0 and {r.unit for r in report.rows} == {"ms", "MB"} and all(r.p50 > 0 for r in report.rows)
    assert [r.bar for r in report.rows if r.bar].count("each < 100 ms") == 2


def test_rows_are_percentiles_in_their_unit():
    results = row("x", [1_000_000 * i for i in range(1, 102)], "ms", baseline="y", ratio=2.0)
    assert (results.p50, results.p99, results.mean, results.n) == (51.0, 100.0, 51.0, 101)


def test_strict_turns_a_missed_bar_into_an_exit_code(tmp_path, monkeypatch, capsys):
    missed = Report("store", "nothing", (Row("slow", "s", 9, 9, 9, 1, bar="< 1 s", met=False),))
    monkeypatch.setattr(perf, "run", lambda name, quick, size, **options: missed)
    options = ["store", "--json", str(tmp_path / "x.json")]
    assert perf.main(options) == 0 and perf.main([*options, "--strict"]) == 1
    assert "1 bar missed" in capsys.readouterr().out


def test_an_unknown_benchmark_is_named(capsys):
    assert perf.main(["serch"]) == 2
    assert "Did you mean 'search'" in capsys.readouterr().err
