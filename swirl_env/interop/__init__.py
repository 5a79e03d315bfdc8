"""Environments of swirl-env in other people's trainers and evaluators: verifiers, OpenEnv, Inspect and TRL.

Each peer has a module of its own here, which is imported only where that peer is installed, and a folder in `templates/` that
``swirl new-export KIND my_env`` copies. Step rewards stay what they are here: None (or NaN with a reason) if a step has none.
"""
