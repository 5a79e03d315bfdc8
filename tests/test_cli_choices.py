"""What a config group takes on the command line: names; options given in their place get the way to write them."""

import pytest

from commands import error_of


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("tool=[{name:search,top_k:3}]", "expected tool=[NAME,...]; options have keys of their own, tool.NAME.OPTION=VALUE."),
        ("tool=[calculator,{name:mcp}]", "expected tool=[NAME,...]"),
        ("tool={name:search}", "expected tool=[NAME,...]"),
        ("tool=[[search]]", "expected tool=[NAME,...]"),
        ("filter=[{none:1}]", "expected filter=[NAME,...]"),
        ("judge={name:rules}", "expected judge=NAME; options have keys of their own, judge.OPTION=VALUE."),
        ("judge=[rules]", "expected judge=NAME"),
        ("agent={name:scripted,noise:0.1}", "expected agent=NAME"),
        ("task=[ledger]", "expected task=NAME"),
    ],
)
def test_options_in_place_of_a_name_are_refused_in_one_line(swirl, tmp_path, word, form):
    error = error_of(swirl("generate", "n=1", "out=run", word))
    assert word in error and form in error and not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["tool=[]", "tool=[calculator]"])
def test_lists_of_names_go_on_as_before(swirl, word):
    assert swirl("generate", "task=ledger", "n=1", "out=run", word)[0] == 0
