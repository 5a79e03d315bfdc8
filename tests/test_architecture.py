"""The house: floors of imports, names of packages, what importing costs, what a wheel holds, names and their errors."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import swirl_env
from swirl_env import registry
from swirl_env.contract import assert_contract
from swirl_env.errors import ConfigError, MissingExtra, PluginError, UnknownName

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"swirl_env": "swirl_env", "agents": "swirl_env.agents", "tools": "swirl_env.tools"}
ROOMS |= {"algos": "swirl_env.algos", "benchmarks": "swirl_env.benchmarks"}

FLOORS = [
    "types errors grading",
    "protocols registry function_tool seeding sequences spaces corpus cache gold_plan fingerprint",
    "tools agents judges tasks episodes store env vector rollout evaluate contract",
    "algos",
    "cli stages config conf benchmarks",
]
PLUGIN_ROOMS = {"tools", "agents", "judges", "tasks"}
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}


def sources():
    """Yields (dotted module name, path) of every module of the package."""
    for folder, package in ROOMS.items():
        for path in sorted((ROOT / folder).rglob("*.py")) if (ROOT / folder).is_dir() else []:
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *[p for p in parts if p != "__init__"]]), path


def imported(path):
    """Yields the dotted names that a file imports, wherever in it (imports for annotations alone are left out)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_imports_go_down_only():
    wrong = []
    for module, path in sources():
        here = room(module)
        if not here:
            continue
        assert here in FLOOR_OF, f"{module}: say in tests/test_architecture.py on which floor the room {here!r} is"
        for name in imported(path):
            there = room(name) if name.startswith("swirl_env.") else ""
            if there not in FLOOR_OF or there == here:
                continue
            if FLOOR_OF[there] > FLOOR_OF[here] or {here, there} <= PLUGIN_ROOMS:
                wrong.append(f"{module} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_room_is_imported_by_its_bare_name():
    bare = {"agents", "tools", "algos", "benchmarks"}
    every = [*sources(), *[(p.stem, p) for p in (ROOT / "tests").glob("*.py")]]
    assert not [f"{path.name}: {name}" for _, path in every for name in imported(path) if name.partition(".")[0] in bare]


def test_importing_is_light():
    code = "import sys, swirl_env; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "transformers", "hydra", "omegaconf", "sympy", "bm25s", "rank_bm25", "rich", "datasets", "scipy", "numba"}
    assert not heavy & set(ast.literal_eval(loaded))


def test_every_entry_point_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for kind, group in registry.KINDS.items():
        declared = project["entry-points"].get(f"swirl_env.{group}", {})
        found = {name: entry.value for name, entry in registry.entries(kind).items()}
        assert declared.items() <= found.items(), f"{kind}: install the package again (pip install -e .)"
        for name in declared:
            assert callable(registry.load(kind, name)), (kind, name)


BROUGHT = {
    "omegaconf": "hydra-core",
    "yaml": "hydra-core",
    "mpmath": "sympy",
    "tokenizers": "transformers",
    "safetensors": "transformers",
}
"""Module that is imported -> the declared package that brings it; all others must be declared by their own name."""
MODULE_OF = {"PyStemmer": "stemmer", "hydra-core": "hydra"}


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def modules(requirements):
        packages = [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]
        of = {MODULE_OF.get(package, package.replace("-", "_").lower()) for package in packages}
        return of | {module for module, package in BROUGHT.items() if package in packages}

    always = modules(project["dependencies"])
    extras = {extra: modules(packages) for extra, packages in project["optional-dependencies"].items()}
    for module, extra in registry._EXTRA_OF.items():
        assert module in extras[extra], f"registry._EXTRA_OF names the extra {extra!r} for {module!r}, which it lacks"
    for dotted, path in sources():
        for name in {name.partition(".")[0] for name in imported(path)} - sys.stdlib_module_names - {"swirl_env"}:
            declared = name.lower() in always or any(name.lower() in held for held in extras.values())
            assert declared, f"{dotted} imports {name!r}: declare its package in pyproject.toml"


def tracked_files():
    """Returns the files of the checkout that git tracks, links included."""
    lines = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [name for name in lines if name and (ROOT / name).exists()]


def build(source, kind, out):
    """Builds a wheel or an sdist of a source tree and returns its path."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "-o", str(out), str(source)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (path,) = out.iterdir()
    return path


@pytest.mark.slow
def test_a_wheel_holds_the_tree_and_no_generic_names(tmp_path):
    for name in tracked_files():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name, follow_symlinks=False)
    direct = build(tmp_path / "source", "wheel", tmp_path / "wheel")
    with tarfile.open(build(tmp_path / "source", "sdist", tmp_path / "sdist")) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    through_sdist = build(unpacked, "wheel", tmp_path / "sdist-wheel")
    wanted = set()
    for name in tracked_files():
        folder, _, rest = name.partition("/")
        if folder in ROOMS and rest and not (ROOT / name).is_symlink():
            wanted.add(f"{ROOMS[folder].replace('.', '/')}/{rest}")
    for wheel in (direct, through_sdist):
        assert {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == wanted


def test_names_have_near_ones_and_extras_have_commands(monkeypatch):
    with pytest.raises(UnknownName, match=r"No agent named 'scriptd'\. Did you mean 'scripted'\? Known: .*random"):
        registry.make_agent("scriptd")
    with pytest.raises(UnknownName, match=r"No option of the agent 'random' named 'sed'\. Did you mean 'seed'\?"):
        registry.make_agent("random", sed=3)
    with pytest.raises(UnknownName, match="has no 'Nope'"):
        registry.make_tool("swirl_env.errors:Nope")
    with pytest.raises(UnknownName, match="needs a 'name'"):
        registry.make_tool({"top_k": 3})
    missing = registry.missing("agent", "transformers", ModuleNotFoundError("no", name="torch.nn"))
    assert isinstance(missing, MissingExtra) and "pip install 'swirl-env[train]'" in str(missing)
    assert isinstance(registry.missing("agent", "transformers", ModuleNotFoundError("no", name="huggingface_hub")), MissingExtra)


def test_two_packages_cannot_claim_one_name(monkeypatch):
    from importlib.metadata import EntryPoint

    claims = [EntryPoint("dup", "a:X", "swirl_env.tools"), EntryPoint("dup", "b:Y", "swirl_env.tools")]
    monkeypatch.setattr(registry, "entry_points", lambda group: claims)
    with pytest.raises(PluginError, match="a:X and b:Y"):
        registry.entries.__wrapped__("tool")


def test_a_path_or_an_object_serves_as_a_name():
    from fakes import EchoTool

    assert isinstance(registry.make_tool("fakes:EchoTool"), EchoTool)
    tool = EchoTool()
    assert registry.make_tool(tool) is tool


def test_what_cannot_be_built_says_what_it_needs():
    with pytest.raises(ConfigError, match=r"The tool 'search' needs a value for 'corpus': give corpus="):
        registry.make_tool("search")
    with pytest.raises(ConfigError, match=r"The agent 'replay' needs a value for 'trajectories'"):
        registry.make_agent("replay")
    for path in (":X", "os:", ".os:path", "a b:c"):
        with pytest.raises(UnknownName, match="outside the registry"):
            registry.make_tool(path)


@swirl_env.tool
def backwards(text: str) -> str:
    """writes a word backwards."""
    if not text.isalpha():
        raise ValueError("That is no word.")
    return {"boom": None}.get(text, text[::-1])[:]


def test_a_function_becomes_a_tool():
    results = backwards.run(["abc", "1 2", "boom", "xy"])
    assert [(r.text, r.error) for r in results[:2]] == [("cba", None), ("That is no word.", "invalid")]
    assert results[2].error == "unavailable" and results[3].text == "yx" and backwards("abc") == "cba"
    assert (backwards.tag, backwards.description) == ("backwards", "writes a word backwards.")
    assert swirl_env.tool(tag="rev", description="d")(lambda text: text[::-1]).run(["ab"])[0].text == "ba"
    with pytest.raises(ConfigError, match="a tag and a description"):
        swirl_env.tool(lambda text: text)


def test_a_path_may_lead_to_a_ready_tool(monkeypatch):
    import sys
    import types

    module = types.ModuleType("a_strangers_module")
    module.backwards = backwards
    monkeypatch.setitem(sys.modules, "a_strangers_module", module)
    assert registry.make_tool("a_strangers_module:backwards") is backwards
    assert_contract("tool", "a_strangers_module:backwards")
    with pytest.raises(ConfigError, match="takes no options; got top_k"):
        registry.make_tool("a_strangers_module:backwards", top_k=3)


def test_only_the_calculators_worker_imports_sympy():
    worker = "swirl_env.tools.calculator.worker."
    importers = {module for module, path in sources() for name in imported(path) if name.partition(".")[0] in ("sympy", "mpmath")}
    importers.discard("swirl_env.benchmarks.perf.calculator")  # which measures the calculator against SymPy
    assert importers == {worker + name for name in ("answer", "evaluate", "functions", "solve")}
