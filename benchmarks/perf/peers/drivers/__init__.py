"""A folder per comparison and a module per side: builds what is measured and returns its measurements by name.

Each runs under `worker.py` in a process of its own, those of a peer with the Python of the peer's virtual environment. So they
import neither one another nor, but for our own sides, anything of this package.
"""
