"""The process that does symbolic mathematics; the only code that imports SymPy."""
