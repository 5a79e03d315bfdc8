"""Judges: a verdict on every single step."""
