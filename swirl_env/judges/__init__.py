"""Judges: one verdict per step of an episode."""
