"""Question sets read from files or from the hub."""
