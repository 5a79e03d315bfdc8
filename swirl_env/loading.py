"""A lock for whoever loads a checkpoint with transformers."""

from __future__ import annotations

import threading

ONE_AT_A_TIME = threading.RLock()
"""Held around ``from_pretrained``: meanwhile transformers replaces methods of its classes, and of two threads that load at once
the second may keep what the first put there, so that no model of the process ties its weights from then on."""
