"""A cache of warm starts for tests: weak ones, made in seconds, under the names of the real ones."""

from swirl_env.algos.embedded import SETTINGS
from swirl_env.algos.warm_start import WarmStart, fingerprint, save, train


def put_warm_starts(root, *settings, seed=0):
    """Puts a warm start of each setting into a cache folder; all have the weights of the first."""
    model, tokenizer, _ = train(SETTINGS[settings[0]], seed, WarmStart(updates=60, worlds=1))
    for name in settings:
        save(model, tokenizer, root / "warm-starts" / f"{name}-{seed}-{fingerprint(SETTINGS[name], seed, WarmStart())}")
