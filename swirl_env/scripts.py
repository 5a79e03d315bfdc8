"""Scripts that write no blanks between words: search and grading look at their characters."""

from __future__ import annotations

UNSEGMENTED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u1100-\u11ff\u3005-\u3007\u3021-\u3029\u3040-\u312f\u3131-\u318f\u31a0-\u31bf\u31f0-\u31ff"  # Kana, Bopomofo, Jamo
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"  # Han, Hangul
)
"""Their characters, as the inside of a character class. Korean is among them: its particles follow a word without a blank."""
