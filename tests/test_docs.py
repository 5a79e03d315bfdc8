"""The code of the guides runs as it stands, its plugins keep their contracts, and every page is in the navigation."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from swirl_env.contract import assert_contract
from swirl_env.registry import entries
from swirl_env.store import Store
from swirl_env.store.filters import FILTERS

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = [
    ("tool", "Thesaurus"),
    ("tool", "backwards"),
    ("tool", "power"),
    ("tool", "Tally"),
    ("judge", "Brief"),
    ("agent", "Caller"),
    ("task", "Synonyms"),
    ("format", "Brackets"),
    ("algo", "StepMean"),
]


def blocks(page):
    """The Python code of a page, in order."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """The plugin guide's code as a module that plugins can be named from."""
    pytest.importorskip("torch", reason="the guide's algorithm needs torch")
    path = tmp_path_factory.mktemp("guide") / "guide_plugins.py"
    path.write_text("\n\n".join(blocks("docs/plugins.md")))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_the_plugins_of_the_guide_keep_their_contracts(guide, kind, name):
    assert_contract(kind, f"{guide.__name__}:{name}")


def tools_of(guide):
    return [guide.Thesaurus(), guide.backwards, guide.power, guide.Tally()]


def test_typed_and_stateful_tools_of_the_guide_do_what_it_says(guide):
    import gymnasium as gym

    env = gym.make("swirl_env/ToolUse-v0", tasks=guide.Synonyms(), tools=tools_of(guide), judge=guide.Brief(), max_steps=9)
    for _ in range(2):  # the second episode counts from the beginning
        env.reset(seed=0)
        assert "-> 81" in env.step('<power>{"base": 3, "exponent": 4}</power>')[0]
        assert "-> 9" in env.step("<power>3</power>")[0]
        assert "exponent" in env.step('<power>{"base": 3, "exponent": "x"}</power>')[0]
        assert [env.step("<tally>please</tally>")[0][-1] for _ in range(2)] == ["1", "2"]
    env.close()


def test_the_plugins_of_the_guide_work_together(guide):
    import gymnasium as gym

    guide.test_my_plugins()
    env = gym.make(
        "swirl_env/ToolUse-v0", tasks=guide.Synonyms(), tools=[guide.Thesaurus(), guide.backwards], judge=guide.Brief()
    )
    env.reset(seed=0, options={"task_id": "synonym-big"})
    observation, reward, *_ = env.step("<synonym>big</synonym>")
    assert "big -> large" in observation and reward == 0.5
    assert "Expected one word." in env.step("<backwards>two words</backwards>")[0]
    _, reward, terminated, _, info = env.step("<answer>large</answer>")
    assert (reward, terminated, info["outcome"].correct) == (1.0, True, True)


@pytest.mark.parametrize("page", ["docs/environment.md", "docs/runs.md"])
def test_the_code_of_the_other_guides_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "guide"}
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)
    assert len(Store("runs/own", "r")) == 20


def test_the_rule_of_the_credit_guide_is_proved_and_its_file_checked(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch", reason="algorithms need torch")
    from swirl_env.cli import main

    code = blocks("docs/own-credit-rule.md")
    names = {"__name__": "guide"}
    for block in code:
        exec(compile(block, "docs/own-credit-rule.md", "exec"), names)
    assert len(code[-1].splitlines()) == 20
    (tmp_path / "forgiving.py").write_text(code[-1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check", "forgiving:Forgiving"]) == 0 and "BROKEN" not in capsys.readouterr().out


def test_every_plugin_of_the_guide_is_tested():
    code = "\n".join(blocks("docs/plugins.md"))
    names = set(re.findall(r"^(?:class|@swirl_env\.tool\ndef) (\w+)", code, re.MULTILINE))
    assert names - {"TallySession"} == {name for _, name in PLUGINS}


@pytest.mark.parametrize("kind", ["judge", "agent", "filter"])
def test_every_plugin_that_comes_along_has_a_row_in_the_guide(kind):
    section = (ROOT / "docs/plugins.md").read_text().partition(f"### {kind.title()}s by name\n")[2].partition("\n#")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    ours = (
        FILTERS if kind == "filter" else [name for name, entry in entries(kind).items() if entry.value.startswith("swirl_env.")]
    )
    assert sorted(listed) == sorted(ours)


def test_every_page_is_in_the_navigation_and_no_line_is_long():
    listed = set(re.findall(r"^ +- ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)) | {"index.md"}
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages == listed
    for name in (*(f"docs/{page}" for page in pages), "CONTRIBUTING.md", "CHANGELOG.md", "README.md"):
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
            assert len(line) <= 130 or line.startswith(("|", "    ")), f"{name}, line {number} has {len(line)} characters"
