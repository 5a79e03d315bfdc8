"""The stages of the command line: one module a stage, beside what they share. Imported when a stage runs."""
