"""Token ids that somebody else sampled, and their prompts, next to the tokenizer and template of the policy trained on them."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable

from msgspec.structs import replace

from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.episodes.reasoning import reasoning_end
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError
from swirl_env.types import Action, Trajectory

log = logging.getLogger(__name__)
LOST_IN_REASONING = (
    "the policy's own template opens a think block, which they were sampled without and never close, so that a policy trained on "
    "them would write what no parser reads; choose a prompt that opens none (model.template_options, model.template=plain)"
)
"""Why some stored actions cannot be learned, and what to do."""
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
                counts["unread"] += _is_lost_in_reasoning(sub.action, own)
                continue
            kind = "own" if own.owns(sub.action) and own.codec.known_ids.issuperset(sub.action.prompt_ids) else "foreign"
            counts[kind] += 1
            if kind == "foreign":
                counts["unread"] += _is_lost_in_reasoning(sub.action, own)
            elif number < _COMPARED:
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
    if counts["unread"]:
        log.warning("%d stored actions, if they are trained on: %s", counts["unread"], LOST_IN_REASONING)
    if counts["prompts"]:
        log.warning(
            "%d of %d stored prompts read otherwise in the policy's own chat template (a system message, a date, another "
            "template); the stored ids count (stored_prompts=own uses the template's prompts instead)",
            counts["prompts"],
            counts["compared"],
        )
    return counts


def under_own_prompts(trajectories: Iterable[Trajectory], renderer: Renderer) -> list[Trajectory]:
    """Returns trajectories whose actions stand behind the prompts that the policy's own template gives them.

    For actions sampled with worked examples or a system message that the policy is to do without (context distillation,
    Askell et al., arXiv 2112.00861). The sampled ids stay. Their log-probs go: they were those behind the other prompt.

    Raises:
        ConfigError: if the own template opens a think block that was not open when actions were sampled, and they never close it.
    """
    collected = []
    counts: Counter[str] = Counter()
    for trajectory in trajectories:
        steps = []
        for step, sub in zip(trajectory.steps, subtrajectories(trajectory), strict=True):
            own = renderer.of(sub.state.settings)
            counts["all"] += 1
            counts["unread"] += _is_lost_in_reasoning(step.action, own)
            now = {"prompt_ids": own.ids(sub.state), "opened": own.opens_reasoning}
            steps.append(replace(step, action=replace(step.action, logprobs=(), behaviour_logprobs=(), **now)))
        collected.append(replace(trajectory, steps=tuple(steps)))
    if counts["unread"]:
        raise ConfigError(f"stored_prompts=own, {counts['unread']} of {counts['all']} stored actions: {LOST_IN_REASONING}.")
    return collected


def _is_lost_in_reasoning(action: Action, own: Renderer) -> bool:
    """Returns whether an action was read where it was sampled, and is all reasoning behind the own template's prompt."""
    if action.opened or not own.opens_reasoning:
        return False
    return reasoning_end(action.text) < len(action.text) == reasoning_end(action.text, opened=True)
