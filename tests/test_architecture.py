"""The house: floors of imports, names of packages, what importing costs, what a wheel holds, names and their errors."""

import ast
import functools
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import swirl_env
from swirl_env import registry
from swirl_env.contract import assert_contract
from swirl_env.errors import ConfigError, MissingExtra, PluginError, UnknownName

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "agents": "swirl_env/agents",
    "tools": "swirl_env/tools",
    "algos": "swirl_env/algos",
    "benchmarks": "swirl_env/benchmarks",
}
"""Folder at the top level -> the link through which it is imported."""

FLOORS = [
    "types errors spaces cache sequences kv_cache loading number_text scripts source_code",
    "protocols grading seeding arguments function_tool adapters",
    "registry texts corpus evaluate gold_plan",
    "tools tasks episodes fingerprint cluster",
    "env judges store contract rollout",
    "agents vector config conf",
    "algos audit",
    "stages view interop",
    "cli",
    "benchmarks",
]
"""From the ground up: a module imports from its own floor and from those below."""
PLUGINS = {"tools", "agents", "judges", "tasks"}
"""Plugins of one kind may share code; they never import those of another kind."""
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
HEAVY = {"torch", "transformers", "accelerate", "peft", "hydra", "sympy"}
"""Packages that are worth an import inside a function."""


class Import(NamedTuple):
    """An import statement: what it names, and whether it runs only when a function is called."""

    name: str
    late: bool


@functools.cache
def tracked_files():
    """Returns the files of the checkout that git tracks, links included."""
    lines = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [name for name in lines if name and (ROOT / name).exists()]


def sources():
    """Returns {dotted module name: path} for every module of the package."""
    modules = {}
    for name in tracked_files():
        folder, _, rest = name.partition("/")
        if name.endswith(".py") and (folder in FOLDERS or folder == "swirl_env"):
            parts = f"{FOLDERS.get(folder, folder)}/{rest}".removesuffix(".py").removesuffix("/__init__").split("/")
            modules[".".join(parts)] = ROOT / name
    return modules


@functools.cache
def imports(path):
    """Returns every import of a file, wherever it stands, those for type checkers included."""
    collected = []
    todo = [(ast.parse(path.read_text(encoding="utf-8")), False)]
    while todo:
        node, late = todo.pop()
        if isinstance(node, ast.Import):
            collected += [Import(alias.name, late) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            collected += [Import(f"{node.module}.{alias.name}", late) for alias in node.names]
        elif not isinstance(node, ast.expr):  # no expression holds a statement
            late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            todo += [(inner, late) for inner in ast.iter_child_nodes(node)]
    return collected


@functools.cache
def arrows():
    """Returns {module: {imported module of the package: whether every such import is late}}."""
    modules = sources()
    graph = {}
    for module, path in modules.items():
        targets = graph[module] = {}
        for name, late in imports(path):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                targets[target] = targets.get(target, True) and late
    return graph


@functools.cache
def is_heavy(module):
    """Whether loading a module loads one of the heavy packages."""
    modules, todo, seen = sources(), [module], set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        if any(name.partition(".")[0] in HEAVY for name, late in imports(modules[module]) if not late):
            return True
        todo += [target for target, late in arrows()[module].items() if not late]
    return False


def room(module):
    """Returns the folder or file directly below ``swirl_env`` that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def test_imports_go_down_only():
    upward = []
    for module, targets in arrows().items():
        here = room(module)
        assert not here or here in FLOOR_OF, f"{module}: say in {Path(__file__).name} on which floor {here!r} is"
        for target in targets if here else ():
            there = room(target)
            if there and there != here and (FLOOR_OF[there] > FLOOR_OF[here] or {here, there} <= PLUGINS):
                upward.append(f"{module} (floor {FLOOR_OF[here] + 1}) imports {target} (floor {FLOOR_OF[there] + 1})")
    assert not upward, f"{len(upward)} upward imports:\n" + "\n".join(upward)


def cycles(graph):
    """Returns the strongly connected components of more than one module (Tarjan 1972)."""
    index, low, stack, components = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                components.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return components


def test_there_are_no_import_cycles(capsys):
    graph = {
        module: {target for target, late in targets.items() if not (late and is_heavy(target))}
        for module, targets in arrows().items()
    }
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]
    components = cycles(graph)
    with capsys.disabled():
        print(f"\n{len(graph)} modules, {sum(map(len, arrows().values()))} arrows, {len(components)} cycles")
    assert not components, "\n".join(" <-> ".join(component) for component in components)


@pytest.mark.parametrize("prefix", ["calc", "grpo", "hf", "search", "perf", "step", "study", "atlas", "ledger"])
def test_no_file_name_has_a_prefix_that_a_folder_could_carry(prefix):
    own = {"atlas_ledger.py", "search_sets.py", "step_dpo.py"}  # a name of its own each, not a folder and what is in it
    files = {path.name for folder in ("swirl_env", *FOLDERS) for path in (ROOT / folder).rglob(f"{prefix}_*.py")}
    assert files <= own


def test_no_room_is_imported_by_its_bare_name():
    bare = {"agents", "tools", "algos", "benchmarks"}
    every = [*sources().values(), *(ROOT / "tests").glob("*.py")]
    assert not [f"{path.name}: {name}" for path in every for name, _ in imports(path) if name.partition(".")[0] in bare]


def test_importing_is_light():
    code = "import sys, swirl_env; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "transformers", "hydra", "omegaconf", "sympy", "bm25s", "rank_bm25", "rich", "datasets", "scipy", "numba"}
    assert not heavy & set(ast.literal_eval(loaded))


def test_every_entry_point_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for kind, group in registry.KINDS.items():
        declared = project["entry-points"].get(f"swirl_env.{group}", {})
        collected = {name: entry.value for name, entry in registry.entries(kind).items()}
        assert declared.items() <= collected.items(), f"{kind}: install the package again (pip install -e .)"
        for name in declared:
            try:
                target = registry.load(kind, name)
            except MissingExtra as absent:  # frameworks outside of the extra `all`
                assert re.search(r"swirl-env\[(verifiers|reasoning-gym)\]", str(absent)), (kind, name)
                continue
            assert callable(target) or (kind == "prompt" and isinstance(target, str)), (kind, name)


BROUGHT = {
    "omegaconf": "hydra-core",
    "yaml": "hydra-core",
    "mpmath": "sympy",
    "markupsafe": "jinja2",
    "tokenizers": "transformers",
    "safetensors": "transformers",
    "httpx2": "mcp",
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
    for dotted, path in sources().items():
        for name in {name.partition(".")[0] for name, _ in imports(path)} - sys.stdlib_module_names - {"swirl_env"}:
            declared = name.lower() in always or any(name.lower() in held for held in extras.values())
            assert declared, f"{dotted} imports {name!r}: declare its package in pyproject.toml"


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
        if (folder in FOLDERS or folder in ("swirl_env", "hydra_plugins")) and not (ROOT / name).is_symlink():
            wanted.add(f"{FOLDERS.get(folder, folder)}/{rest}")
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
    symbolic = {"sympy", "mpmath"}
    importers = {
        module for module, path in sources().items() if any(name.partition(".")[0] in symbolic for name, _ in imports(path))
    }
    importers.discard("swirl_env.benchmarks.perf.calculator")  # which measures the calculator against SymPy
    assert importers == {worker + name for name in ("answer", "evaluate", "functions", "solve")}
