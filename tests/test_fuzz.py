"""The fuzzer, small: nothing that a model could write raises, and what would raise is counted."""

import logging

import pytest

from swirl_env.benchmarks import fuzz
from swirl_env.episodes.formats import XmlFormat
from swirl_env.registry import make_format, names


def test_nothing_that_is_generated_raises(caplog):
    with caplog.at_level(logging.CRITICAL):
        findings = fuzz.Findings()
        for name in names("format"):
            fuzz.fuzz_format(name, 3_000, 1, findings)
    assert not findings.errors and sum(findings.checked.values()) == 3_000 * len(names("format"))


def test_environments_with_mixed_tools_take_any_action(tmp_path):
    findings = fuzz.Findings()
    fuzz.fuzz_steps(1_280, 1, findings, tmp_path)
    assert not findings.errors and findings.checked["environment steps"] == 1_280
    assert findings.checked["trajectories"] > 100 and len(findings.lines) == 1


def test_generated_actions_hold_calls_answers_and_neither():
    fmt = make_format("xml", fuzz.TAGS)
    stream = fuzz.actions(fuzz.random.Random(0))
    kinds = {type(fmt.parse(next(stream))).__name__ for _ in range(300)}
    assert kinds == {"ToolCall", "Answer", "Malformed"}


@pytest.mark.parametrize("flaw", ["raises", "span", "correction"])
def test_what_breaks_is_counted(monkeypatch, flaw):
    class Flawed(XmlFormat):
        def parse(self, text, opened=False):
            read = super().parse(text, opened)
            if flaw == "raises" and "\ud800" in text:
                raise ValueError("surrogate")
            return (
                type(read)(*[getattr(read, name) for name in read.__struct_fields__[:-1]], len(text) + 1)
                if flaw == "span"
                else read
            )

        def correction(self, malformed):
            return "" if flaw == "correction" else super().correction(malformed)

    monkeypatch.setattr(fuzz, "make_format", lambda name, tags: Flawed(tags))
    findings = fuzz.Findings()
    fuzz.fuzz_format("xml", 500, 0, findings)
    assert findings.errors


def test_the_command_prints_its_figures(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "linearity", lambda name: 2.0)
    monkeypatch.setattr("sys.argv", ["fuzz", "--actions", "50", "--steps", "128"])
    assert fuzz.main() == 0
    shown = capsys.readouterr().out
    assert "0 exceptions" in shown and "memory:" in shown and "twice the text takes 2.00 x the time" in shown
