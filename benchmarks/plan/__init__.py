"""What a run needs and where it waits, before anybody rents the machines: ``python -m swirl_env.benchmarks.plan``."""
