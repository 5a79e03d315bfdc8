"""A person's path: the benchmark, its report, a wrong answer, another judge, the comparison. Each command prints the next one."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from test_cli_printed import run_all

from commands import printed_commands

pytestmark = pytest.mark.usefixtures("own_cache")


def printed(stage, text):
    """Returns the first command of a stage in what another one printed."""
    return next(argv for argv in printed_commands(text) if argv[0] == stage)


def test_from_the_benchmark_to_the_comparison_of_judges(swirl):
    code, out, err = swirl("bench", "part=agents", "n=6", "only=[atlas-scripted-0.4]", "out=b")
    assert code == 0, err
    pages = dict(re.findall(r"^(report|episodes): (\S+)$", out, re.MULTILINE))
    assert pages == {"report": "b/report/report.html", "episodes": "b/view.html"}
    show = printed("show", out)
    assert " ".join(show) in Path(pages["report"]).read_text(), "the page names the command, too"
    code, shown, err = swirl(*show)
    assert code == 0 and "wrong" in shown.rpartition("ended:")[2], err
    code, judged, err = swirl(*printed("judge", shown))
    assert code == 0 and "6 episodes judged" in judged, err
    report = printed("report", judged)
    code, compared, err = swirl(*report)
    assert code == 0 and "Agreement of judges" in compared and "outcome-" in compared, err
    (section,) = json.loads(Path("b/atlas-scripted-0.4-report/report.json").read_text())["sections"]
    (pair,) = section["cells"][0]["runs"][0]["agreement"]
    assert pair["steps"] == 6, "the outcome judge labels the last step of each episode"


def test_every_command_that_a_report_prints_works(swirl, monkeypatch):
    monkeypatch.setattr("swirl_env.view.report.files.pictures", lambda report: [])  # seconds each, and drawn above
    swirl("generate", "task=atlas", "agent.noise=0.4", "-m", "n=4", "seed=0,1,2", "out=sweep")
    code, out, _ = swirl("report", "sweep")
    assert code == 0
    done = run_all(swirl, out)
    assert {"show", "view", "judge", "report"} <= {argv[0] for argv in done}


def test_the_wrong_answer_is_one_of_an_agent_that_gives_right_ones_too(swirl):
    words = ["agent=random", "agent=scripted agent.noise=0.4"]
    for name, agent in zip(("a", "b"), words, strict=True):
        assert swirl("generate", "task=ledger", *agent.split(), "n=8", f"out=runs/{name}")[0] == 0
    code, out, _ = swirl("report", "runs/a", "runs/b")
    assert code == 0 and printed("show", out)[1] == "runs/b"


def test_a_benchmark_whose_rows_cannot_be_compared_says_so_and_ends_well(swirl, monkeypatch):
    monkeypatch.setattr("swirl_env.benchmarks.pages.compared_keys", lambda options: ["algo"])
    code, out, err = swirl("bench", "part=agents", "n=2", "only=[ledger-scripted]", "out=b")
    assert code == 0 and "no report: The runs differ in more than algo: agent.noise" in out, err
    assert Path("b/bench.json").is_file()


def test_without_the_extra_a_benchmark_says_what_to_install(swirl, monkeypatch):
    monkeypatch.setattr("swirl_env.benchmarks.pages._PACKAGES", ("scipy", "no_such_package"))
    code, out, _ = swirl("bench", "part=agents", "n=2", "only=[ledger-scripted-0.2]", "out=b")
    assert code == 0 and "pip install 'swirl-env[report]', then swirl report b" in out and not Path("b/report").exists()
