"""A cache of warm starts for tests: weak ones, made in seconds, under the names of the real ones."""

import re
import shutil
from itertools import cycle, islice
from unittest import mock

import torch

from swirl_env.algos import warm_start
from swirl_env.algos.embedded import SETTINGS
from swirl_env.algos.warm_start import WarmStart, fingerprint, save, train
from swirl_env.cache import build_cached

BATCHES = 100
"""Batches of demonstrations, which come again and again: to make them is half of the work, and few do for a weak policy."""


def put_warm_starts(root, *settings, seed=0, updates=60):
    """Puts a warm start of each setting into a cache folder; all have the weights of the first.

    Made once for all tests of a run of pytest, whichever of its processes they are in.
    """
    (run,) = [folder for folder in root.parents if re.fullmatch(r"pytest-\d+", folder.name)] or [root]
    made = build_cached(run / "weak" / f"{settings[0]}-{seed}-{updates}", lambda new: _make(new, settings[0], seed, updates))
    for name in settings:
        folder = root / "warm-starts" / f"{name}-{seed}-{fingerprint(SETTINGS[name], seed, WarmStart())}"
        shutil.copytree(made / "policy", folder, dirs_exist_ok=True)
    return folder


def _make(folder, setting, seed, updates):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums come out the same on every machine, however many threads it has
    batches = warm_start.batches
    with mock.patch.object(warm_start, "batches", lambda *of: islice(cycle(list(islice(batches(*of), BATCHES))), updates)):
        model, tokenizer, _ = train(SETTINGS[setting], seed, WarmStart(updates=updates, worlds=1))
    torch.set_num_threads(threads)
    save(model, tokenizer, folder / "policy")
