"""Think blocks: what is in ``<think>...</think>`` is reasoning, neither parsed nor a reason to stop generating.

Chat templates of reasoning models (DeepSeek-R1, Qwen3) may open the block in the generation prompt, so that a response holds
only its end. Hence two rules: a ``</think>`` that closes no block of the text makes everything before it reasoning, and a
block that is never closed is reasoning up to the end. Blocks do not nest: a ``<think>`` inside one is prose.
"""

from __future__ import annotations

import re

THINK = "think"
OPEN = f"<{THINK}>"
CLOSE = f"</{THINK}>"
THINK_MARK = re.compile(
    r"[<\[◁]\|?(?:seed:)?(?P<close>/(?:seed:)?|end_of_|end_)?(?:begin_of_|begin_|start_of_|start_)?"
    r"(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)(?:\s[^<>\[\]]{0,200})?\|?[>\]▷]",
    re.IGNORECASE,
)
"""The beginning or end of a think block, as various models write it. Agents and judges know all of these; in an action the
tokens of a model's own marks are decoded as ``<think>`` and ``</think>``, the one form that formats read."""


def reasoning_end(text: str, opened: bool = False) -> int:
    """Returns the index in a response after which text is no longer reasoning; linear in its length.

    A generation may stop at a stop string after this index, and at none before it.

    Args:
        text: the response so far.
        opened: whether the generation prompt ended inside a think block.

    Returns:
        0 without a think block, ``len(text)`` inside one that is open, else the index after the last ``</think>``.
    """
    close = text.rfind(CLOSE)
    if close < 0:
        return len(text) if opened or OPEN in text else 0
    end = close + len(CLOSE)
    return len(text) if text.find(OPEN, end) >= 0 else end
