"""Supervised warm start of the embedded policy on the noisy scripted expert, cached under a hash of everything it depends on.

Every demonstration is seen once, and they come from several worlds: names are to be copied from the context, and a policy
that meets the same facts too often learns them by heart instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from swirl_env.agents.transformers.interfaces import CausalLM, Tokenizer
from swirl_env.agents.transformers.load import quiet
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.algos.batch import Segment, collate, row_tokens
from swirl_env.algos.embedded import FORMAT, TASKS, Setting, build_model, build_tokenizer, get_setting
from swirl_env.algos.scoring import ActionScorer
from swirl_env.algos.sources import imported_sources
from swirl_env.cache import build_cached, cache_root
from swirl_env.episodes.rollout import collect
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.registry import load, make_agent
from swirl_env.types import Trajectory

EXPERT = "scripted"
"""The agent that demonstrates."""
_WINDOW = 16
"""Batches that are sorted by length together: less padding, and each batch still has a fair mix."""
_SLOTS = 64
_T = TypeVar("_T")
Report = Callable[[int, int, str], None]
"""Called with (updates done, updates in all, a note on the loss)."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """How the supervised training is done."""

    updates: int = 1_800
    batch: int = 16
    """Demonstrations per update."""
    lr: float = 3e-3
    decay: float = 0.4
    """Share of the updates, the last ones, over which the learning rate falls to 0."""
    worlds: int = 4
    """Training worlds that the demonstrations come from, in turn."""
    kinds: tuple[str, ...] = ("wrong_entity", "repeat", "premature")
    """Kinds of stray actions (see `ScriptedAgent`); an action left open would take an end that the policy cannot see."""
    max_grad_norm: float = 1.0
    width: int = 64
    """Width of the policy's hidden states, a multiple of 32."""
    layers: int = 2
    device: str = "cpu"
    """Where it is trained; the checkpoint is the same on every device but for rounding."""


def warm_start(
    setting: str | Setting,
    seed: int = 0,
    *,
    config: WarmStart | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    report: Report | None = None,
) -> Path:
    """Returns the folder of the warm-started policy, an ordinary checkpoint of transformers; trains it if it is not cached.

    Args:
        setting: name of a setting, or one of your own.
        seed: initial weights, worlds, demonstrations and their order all follow from it.
        config: see `WarmStart`.
        cache_dir: the cache folder; by default as for search indexes.
        report: called after each update.
    """
    setting, config = get_setting(setting), config or WarmStart()

    def make(folder: Path) -> None:
        model, tokenizer, losses = train(setting, seed, config, report)
        save(model, tokenizer, folder)
        record = {"setting": asdict(setting), "seed": seed, "config": asdict(config), "loss": losses}
        (folder / "warm_start.json").write_text(json.dumps(record, indent=1) + "\n")

    return build_cached(cached_folder(setting, seed, config, cache_dir), make)


def is_cached(setting: str | Setting, seed: int, config: WarmStart) -> bool:
    """Returns whether a warm start is there already."""
    return cached_folder(get_setting(setting), seed, config).is_dir()


def cached_folder(setting: Setting, seed: int, config: WarmStart, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Returns the folder of a warm start, whether it has been trained or not."""
    return cache_root(cache_dir) / "warm-starts" / f"{setting.name}-{seed}-{fingerprint(setting, seed, config)}"


def fingerprint(setting: Setting, seed: int, config: WarmStart) -> str:
    """Returns the hash of everything that a warm start follows from: options, the code at work, and torch's version."""
    digest = hashlib.blake2b(repr((torch.__version__, asdict(setting), seed, asdict(config))).encode(), digest_size=8)
    for path in imported_sources(__name__, *_plugin_modules(setting)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _plugin_modules(setting: Setting) -> list[str]:
    """Returns the modules that come in by a plugin's name and not by an import."""
    tools = [("tool", tool["name"]) for tool in setting.engine_options()["tools"]]
    plugins = [("agent", EXPERT), ("task", TASKS), ("format", FORMAT), *tools]
    return [load(kind, name).__module__ for kind, name in plugins]


def save(model: CausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes model and tokenizer as an ordinary checkpoint."""
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def train(
    setting: Setting, seed: int, config: WarmStart, report: Report | None = None
) -> tuple[CausalLM, Tokenizer, list[float]]:
    """Returns the trained model, its tokenizer, and the loss (nats per action token) over each tenth of the updates."""
    words = build_tokenizer()
    tokenizer, model = cast(Tokenizer, words), cast(Any, build_model(len(words), seed, config.width, config.layers))
    model.to(config.device)
    scorer = ActionScorer(model.train())
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: learning_rate(config, update))
    losses: list[float] = []
    with one_thread():
        for rows in batches(setting, seed, config, Renderer(tokenizer)):
            loss = -scorer(collate([[row] for row in rows]).to(model.device)).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if report is not None:
                report(len(losses), config.updates, f"loss {losses[-1]:.3f}")
    tenth = max(1, len(losses) // 10)
    return model.eval(), tokenizer, [sum(part) / len(part) for part in _chunks(losses, tenth)]


def learning_rate(config: WarmStart, update: int) -> float:
    """Returns the factor on the learning rate at an update: 1, then falling to 0 in a straight line."""
    return min(1.0, (config.updates - update) / max(1.0, config.decay * config.updates))


def batches(setting: Setting, seed: int, config: WarmStart, renderer: Renderer) -> Iterator[list[Segment]]:
    """Yields the demonstrations of each update as token rows, similar lengths together."""
    rng = random.Random(seed)
    window: list[Segment] = []
    size = config.batch * _WINDOW
    left = config.batch * config.updates
    for trajectory in demonstrations(setting, seed, config, left):
        window.append(token_row(trajectory, renderer))
        left -= 1
        if len(window) == size or not left:
            window.sort(key=lambda row: row_tokens([row]))
            groups = list(_chunks(window, config.batch))
            rng.shuffle(groups)
            yield from groups
            window = []


def demonstrations(setting: Setting, seed: int, config: WarmStart, episodes: int) -> Iterator[Trajectory]:
    """Yields episodes of the noisy expert, right and wrong ones alike, from `config.worlds` training worlds in turn."""
    expert = make_agent(EXPERT, noise=setting.noise, seed=seed, kinds=config.kinds, reasoning=False)
    # Nobody will search these worlds again: their indexes stay out of the cache.
    with tempfile.TemporaryDirectory() as indexes:
        tools = [{**tool, "cache_dir": indexes} for tool in setting.engine_options()["tools"]]
        for world in range(config.worlds):
            share = (episodes * (world + 1)) // config.worlds - (episodes * world) // config.worlds
            engine = setting.engine("train", warm_start_world(seed, world), judge=None, tools=tools)
            yield from collect(expert, engine, share, _SLOTS, seed)


def warm_start_world(seed: int, world: int) -> int:
    """Returns the seed of a training world of the warm start: a range of its own, apart from the small seeds of training."""
    return 1_000_000 + 1_000 * seed + world


def token_row(trajectory: Trajectory, renderer: Renderer) -> Segment:
    """Returns an episode as one row of tokens in which those of its actions carry loss."""
    *_, last = subtrajectories(trajectory)
    renderer = renderer.of(last.state.settings)
    state = renderer.render(last.state)
    final = renderer.text_ids(last.action.text)
    ids = [*state.ids, *final]
    spans = [*state.spans, (len(state.ids), len(ids))]
    targets = [(i, step, i - start) for step, (start, end) in enumerate(spans) for i in range(start, end)]
    return Segment(ids, targets=targets)


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch compute on one thread: at this size more of them lose more to waiting than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _chunks(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
