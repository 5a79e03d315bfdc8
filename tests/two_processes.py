"""Scripts that train in one process, or in two over gloo on CPUs."""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked


def run_script(folder, processes, script, *arguments, seconds=280):
    """Runs a script in a new folder; its arguments are the folder of the tests, its own folder, and `arguments`."""
    folder.mkdir()
    file = folder / "script.py"
    file.write_text(script)
    words = [file, Path(__file__).parent, folder, *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    for code, _, err in run_group(words, processes, env, seconds):
        assert code == 0, err[-3000:]


def run_group(words, processes, env, seconds=280):
    """Runs ``python *words`` in several processes, as a launcher does; returns exit code, stdout and stderr of each.

    Like a launcher it tells each its place in the group, and ends them all once one has failed. What the launcher itself does is
    tested by test_cli_train_processes, which starts it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        group.append(forked.start(words, env={**env, **({k: str(v) for k, v in place.items()} if processes > 1 else {})}))
    with ThreadPoolExecutor(processes) as pool:

        def end(process):
            try:
                out, err = process.communicate(timeout=seconds)
            finally:
                if process.returncode != 0:
                    for other in group:
                        other.kill()
            return process.returncode, out, err

        return list(pool.map(end, group))


def launched(folder, processes, script, seconds=280):
    """Runs a script; returns what each process wrote into results-RANK.json, and its tensors NAME-RANK.pt by name."""
    import torch

    run_script(folder, processes, script, seconds=seconds)
    results = [json.loads((folder / f"results-{rank}.json").read_text()) for rank in range(processes)]
    tensors = [{file.stem[:-2]: torch.load(file) for file in folder.glob(f"*-{rank}.pt")} for rank in range(processes)]
    return results, tensors
