"""What goes wrong outside the configuration: plugins that raise, folders that cannot be written, names that no system takes."""

import os
import signal
import time
from pathlib import Path

import pytest

from commands import error_of, finish, started
from swirl_env import registry
from swirl_env.errors import PluginError
from swirl_env.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")

FAKES = ["task=fakes:SumTasks", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge", "agent=fakes:EchoAgent"]


class Raises:
    """A plugin of any kind whose constructor raises."""

    def __init__(self, word: str = "x"):
        {}[f"no \x1b[31m{word}"]


class Dicts:
    """A task source whose tasks are no `Task`s."""

    corpus, split, tools, max_steps = None, "test", (), 3

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return {"question": "1 + 1?", "answer": "2"}


class Silent:
    """An agent that returns nothing."""

    def act(self, states):
        return None


class Slow:
    """An agent that takes its time."""

    def act(self, states):
        time.sleep(0.05)
        return [__import__("swirl_env.types", fromlist=["Action"]).Action("<answer>1</answer>") for _ in states]


@pytest.mark.parametrize("group", ["agent", "judge", "task", "tool"])
def test_a_constructor_that_raises_is_one_line_with_the_plugins_own_traceback(swirl, tmp_path, group):
    value = "test_cli_errors:Raises"
    words = {word.partition("=")[0]: word for word in FAKES} | {group: f"{group}={f'[{value}]' if group == 'tool' else value}"}
    code, _, err = swirl("generate", *words.values(), "n=2", "out=run")
    first, second, *rest = err.splitlines()
    assert code == 2 and first.startswith(f"swirl: The {group} 'test_cli_errors:Raises' could not be made: KeyError: ")
    assert second == "Traceback of the plugin (most recent call last):" and "test_cli_errors.py" in rest[0]
    assert "\x1b" not in err and "swirl_env/registry.py" not in err
    assert not Path("run").exists()


@pytest.mark.parametrize(("code", "says"), [("1 +", "SyntaxError"), ("len.nope", "AttributeError"), ("1/0", "ZeroDivisionError")])
def test_a_module_that_cannot_be_loaded_is_one_line(swirl, monkeypatch, code, says):
    monkeypatch.syspath_prepend(".")
    Path(f"broken_{says}.py").write_text(code)
    exit_code, _, err = swirl("generate", *FAKES[:3], f"agent=broken_{says}:Agent", "out=run")
    assert exit_code == 2 and err.startswith(f"swirl: The agent 'broken_{says}:Agent' could not be imported: {says}"), err
    with pytest.raises(PluginError, match="could not be imported"):
        registry.load("judge", f"broken_{says}:Judge")


@pytest.mark.parametrize(("word", "says"), [("task=test_cli_errors:Dicts", "Task"), ("agent=test_cli_errors:Silent", "None")])
def test_plugins_that_return_something_else_are_refused_with_their_name(swirl, word, says):
    words = {w.partition("=")[0]: w for w in FAKES} | {word.partition("=")[0]: word}
    code, _, err = swirl("generate", *words.values(), "n=2", "out=run")
    assert code == 2 and err.startswith("swirl: ") and says in err.splitlines()[0] and "swirl_env/episodes" not in err


@pytest.mark.parametrize("name", ["a" * 300, "ä" * 200, "deep/" + "b" * 256, "runs/" + "/".join("c" * 200 for _ in range(30))])
@pytest.mark.parametrize("stage", ["generate", "eval", "judge", "filter", "bench"])
def test_names_that_are_too_long_are_one_line(swirl, stage, name):
    words = {"generate": [*FAKES, "n=2"], "bench": ["part=agents", "n=2", "only=[ledger]"]}.get(stage, [])
    assert error_of(swirl(stage, *words, f"out={name}"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, where root cannot write either")
@pytest.mark.parametrize("stage", ["generate", "bench"])
@pytest.mark.parametrize("folder", ["/proc/self/run", "/proc/run"])
def test_folders_that_cannot_be_written_are_one_line(swirl, stage, folder):
    words = {"generate": [*FAKES, "n=2"], "bench": ["part=agents", "n=2", "only=[ledger]"]}[stage]
    assert "Choose another" in error_of(swirl(stage, *words, f"out={folder}"))


@pytest.mark.parametrize("name", ["m/x[/y]", "[red]a[/red]", "a[bold", "%s{0}"])
def test_names_of_folders_are_no_markup(swirl, name):
    code, _, err = swirl("generate", *FAKES, "n=2", f"out={name}")
    assert code == 0 and len(Store(name, "r")) == 2, err
    for stage in ("eval", "filter"):
        code, out, err = swirl(stage, f"out={name}")
        assert code == 0 and out.lstrip().startswith(name), err + out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_a_stage_with_the_command_that_goes_on(tmp_path, number):
    before = signal.signal(number, signal.SIG_DFL)  # under nohup a child would ignore SIGHUP, as it should
    argv = ["task=fakes:SumTasks", "task.n=500", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge", "agent=test_cli_errors:Slow"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = started(tmp_path, "generate", *argv, "n=500", "slots=2", "out=run", env=env)
    signal.signal(number, before)
    while not any((tmp_path / "run/trajectories").glob("*.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}[number]
    assert "episodes are in run. To go on: swirl generate out=run resume=true" in err.splitlines()[-1]
