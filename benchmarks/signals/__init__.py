"""Step signals against exact values: the audit of all signals on the same episodes, and the page about it."""
