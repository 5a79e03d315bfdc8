"""Token ids that somebody else sampled, and their prompts, next to the tokenizer and template of the policy trained on them."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable

from msgspec.structs import replace

from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError
from swirl_env.types import Trajectory

log = logging.getLogger(__name__)
_COMPARED = 64
"""Trajectories whose prompts are compared with the policy's own template."""


def check_stored_ids(trajectories: Iterable[Trajectory], renderer: Renderer) -> Counter[str]:
    """Returns how many stored actions have ids of the policy's tokenizer (``own``), of another (``foreign``) or none (``text``).

    An action whose ids decode to its text is trained on with just these, behind the ids of its prompt; the others are
    tokenised again. Both are logged if they are not what one would expect of trajectories from a server.

    Raises:
        ConfigError: if there are ids, and none of them are of the policy's tokenizer.
    """
    counts: Counter[str] = Counter()
    for number, trajectory in enumerate(trajectories):
        own = renderer.of(trajectory.settings)
        for sub in itertools.islice(subtrajectories(trajectory), len(trajectory.steps)):
            if not sub.action.token_ids or not sub.action.prompt_ids:
                counts["text"] += 1
                continue
            kind = "own" if own.owns(sub.action) and own.codec.known_ids.issuperset(sub.action.prompt_ids) else "foreign"
            counts[kind] += 1
            if kind == "own" and number < _COMPARED:
                counts["compared"] += 1
                counts["prompts"] += own.ids(sub.state) != sub.action.prompt_ids
    sampled = counts["own"] + counts["foreign"]
    if counts["foreign"] and not counts["own"]:
        raise ConfigError(
            f"The token ids of all {sampled:,} stored actions are of another tokenizer than the policy's. Train the model that "
            f"sampled them (policy=...), or generate them with agent.token_ids=off to train on their text."
        )
    if counts["foreign"]:
        log.warning(
            "%d of %d stored actions have ids that are not their text's; they are tokenised again", counts["foreign"], sampled
        )
    if counts["prompts"]:
        log.warning(
            "%d of %d stored prompts read otherwise in the policy's own chat template (a system message, a date, another "
            "template); the stored ids count (stored_prompts=own takes the template's)",
            counts["prompts"],
            counts["compared"],
        )
    return counts


def under_own_prompts(trajectory: Trajectory, renderer: Renderer) -> Trajectory:
    """Returns a trajectory whose actions stand behind the prompts that the policy's own template gives them.

    For actions sampled with worked examples or a system message that the policy is to do without (context distillation,
    Askell et al., arXiv 2112.00861). The sampled ids stay. Their log-probs go: they were those behind the other prompt.
    """
    steps = []
    for step, sub in zip(trajectory.steps, subtrajectories(trajectory), strict=True):
        prompt = renderer.of(sub.state.settings).ids(sub.state)
        action = replace(step.action, prompt_ids=prompt, logprobs=(), behaviour_logprobs=())
        steps.append(replace(step, action=action))
    return replace(trajectory, steps=tuple(steps))
