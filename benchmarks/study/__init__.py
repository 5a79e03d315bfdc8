"""The study of step rewards: ``python -m swirl_env.benchmarks.study``."""
