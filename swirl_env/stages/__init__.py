"""The stages of the command line: one module per stage, and what they share. Imported when a stage runs."""
