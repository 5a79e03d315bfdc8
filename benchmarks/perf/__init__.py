"""Speed and memory, as ratios against baselines run next to them: ``python -m swirl_env.benchmarks.perf``."""
