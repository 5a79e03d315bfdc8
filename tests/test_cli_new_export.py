"""``swirl new-export``: a folder written once, with names that are safe, in packages that build."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from commands import error_of
from swirl_env.stages.new_export import TEMPLATES, kinds

KINDS = kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_is_python_and_names_itself(swirl, tmp_path, kind):
    code, out, _ = swirl("new-export", kind, "tide_pool", "task=ledger")
    assert code == 0 and "tide_pool/tide_pool/engine.py" in out and re.search("^next: .*tide_pool", out, re.MULTILINE)
    folder = tmp_path / "tide_pool"
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert f"{len(written)} files in tide_pool" in out and list(tmp_path.iterdir()) == [folder]
    for path in written:
        text = path.read_text()
        assert "my_env" not in text and "MyEnv" not in text and not path.name.endswith(".tmpl"), path
        if path.suffix == ".py":
            ast.parse(text)
    assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] == "tide_pool"
    assert "swirl-env[" in str(tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"])
    assert 'TASK = "ledger"' in (folder / "tide_pool" / "engine.py").read_text()
    lint = [sys.executable, "-m", "ruff", "check", "-q", "--isolated", "--select", "E,F,B,UP", "--line-length", "130"]
    done = subprocess.run([*lint, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "No module named ruff" in done.stderr, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_overwritten(swirl, tmp_path, kind):
    for make in (lambda: (tmp_path / "mine").mkdir(), lambda: (tmp_path / "mine").symlink_to("nowhere")):
        make()
        assert "exists already" in error_of(swirl("new-export", kind, "mine"))
        (tmp_path / "mine").rmdir() if (tmp_path / "mine").is_dir() else (tmp_path / "mine").unlink()
    (tmp_path / "mine").write_text("a file")
    assert "exists already" in error_of(swirl("new-export", kind, "mine"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and (tmp_path / "mine").read_text() == "a file"


@pytest.mark.parametrize(("kind", "near"), [("verifier", "verifiers"), ("open-env", "openenv"), ("inspect_ai", "inspect")])
def test_an_unknown_kind_gets_the_nearest(swirl, tmp_path, kind, near):
    error = error_of(swirl("new-export", kind, "my_env"))
    assert f"Did you mean '{near}'?" in error and all(name in error for name in KINDS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "/tmp/x", ".", "", "My_Env", "my-env", "1st", "class", "json", "swirl_env", "x;y", "ü"]
)
def test_a_name_that_no_package_can_have_is_refused(swirl, tmp_path, name):
    assert "name of a" in error_of(swirl("new-export", KINDS[0], name))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [(), ("verifiers",), ("verifiers", "a", "b")])
def test_a_wrong_number_of_words_gets_the_form(swirl, arguments):
    assert "swirl new-export KIND my_env" in error_of(swirl("new-export", *arguments))


def test_an_unknown_task_or_option_gets_the_nearest(swirl, tmp_path):
    assert "Did you mean 'atlas_ledger'?" in error_of(swirl("new-export", KINDS[0], "my_env", "task=atlas_leger"))
    assert "Did you mean 'task'?" in error_of(swirl("new-export", KINDS[0], "my_env", "tasks=ledger"))
    assert not list(tmp_path.iterdir())


def test_the_help_lists_the_kinds_and_costs_no_hydra(swirl):
    code, out, _ = swirl("new-export", "--help")
    assert code == 0 and all(kind in out for kind in KINDS)
    script = "import sys; from swirl_env.cli import main; main(['new-export', '--help']); print('hydra' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_every_template_says_what_comes_next_and_is_in_the_package():
    for kind in KINDS:
        assert (TEMPLATES / kind / "NEXT").read_text().count("\n") == 1
        assert (TEMPLATES / kind / "README.md.tmpl").is_file() and (TEMPLATES / kind / "my_env" / "engine.py.tmpl").is_file()
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["swirl_env.interop"]
    assert patterns == ["templates/**/*"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_template_imports_from_swirl_env_is_there(kind):
    imported = 0
    for path in (TEMPLATES / kind / "my_env").iterdir():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("swirl_env"):
                names = defined(ROOT.joinpath(*node.module.split(".")))
                assert names.issuperset(alias.name for alias in node.names), (path.name, node.module)
                imported += 1
    assert imported >= 2


def defined(path):
    """The names of a module or package at the top level, without importing it: its peer may not be installed."""
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = set()
    body = ast.parse(source.read_text()).body
    for node in [*body, *(inner for part in body if isinstance(part, ast.If) for inner in part.body)]:  # if TYPE_CHECKING
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names
