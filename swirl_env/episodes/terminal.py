"""An episode as text for a terminal: prompt, actions, results, rewards and critiques."""

from __future__ import annotations

from swirl_env.errors import printable
from swirl_env.types import State, Step, Verdict


def render_state(state: State) -> str:
    """Returns the episode so far; control and invisible characters of model and tool text are shown as escapes."""
    blocks = [f"task {state.task.id}\n{state.turns[0].text}"]
    blocks += [render_step(i, step) for i, step in enumerate(state.steps, start=1)]
    return printable("\n\n".join(blocks))


def render_step(number: int, step: Step) -> str:
    """Returns one step: what the policy wrote, the reply, and the verdict."""
    lines = [f"[{number}] {step.action.text.strip()}"]
    if step.observation:
        lines.append(f"    {step.observation}")
    elif step.result is not None:
        lines.append(f"    -> {step.result.text}")
    lines.append(f"    {render_verdict(step.verdict)}")
    return "\n".join(lines)


def render_verdict(verdict: Verdict) -> str:
    """Returns a verdict in one line."""
    head = verdict.status if verdict.reward is None else f"reward {verdict.reward:g}"
    label = f" {verdict.label}" if verdict.label else ""
    return f"{head}{label}{': ' + verdict.critique if verdict.critique else ''}"
