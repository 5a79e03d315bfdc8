"""Text -> `ToolCall`, `Answer` or `Malformed`: pure functions, total over all strings, linear in their length.

All formats share one rule: reading from the left, the first element that is complete decides. So
`parse(text + more) == parse(text)` whenever `text` already holds a call or an answer, and a generation that stops at the
first closing tag means the same as one that runs on. Think blocks are not read (`swirl_env.episodes.reasoning`); the one
exception to the rule is a ``</think>`` in `more` that closes no block, which turns all text before it into reasoning.
"""

from swirl_env.episodes.formats.hermes import HermesBareFormat, HermesFormat
from swirl_env.episodes.formats.native import NativeFormat
from swirl_env.episodes.formats.scanner import ANSWER, TagScanner
from swirl_env.episodes.formats.xml import XmlFormat

__all__ = ["ANSWER", "HermesBareFormat", "HermesFormat", "NativeFormat", "TagScanner", "XmlFormat"]
