"""Scripts that train in one process, or in two under accelerate's launcher, over gloo on CPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

LAUNCHER = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


def run_script(folder, processes, script, *arguments, seconds=280):
    """Runs a script in a new folder; its arguments are the folder of the tests, its own folder, and `arguments`."""
    folder.mkdir()
    file = folder / "script.py"
    file.write_text(script)
    command = [sys.executable, *(LAUNCHER if processes == 2 else []), str(file), str(Path(__file__).parent), str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=seconds, env=env)
    assert done.returncode == 0, done.stderr[-3000:]


def launched(folder, processes, script, seconds=280):
    """Runs a script; returns what each process wrote into results-RANK.json, and its tensors NAME-RANK.pt by name."""
    import torch

    run_script(folder, processes, script, seconds=seconds)
    results = [json.loads((folder / f"results-{rank}.json").read_text()) for rank in range(processes)]
    tensors = [{file.stem[:-2]: torch.load(file) for file in folder.glob(f"*-{rank}.pt")} for rank in range(processes)]
    return results, tensors
