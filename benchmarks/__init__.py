"""imported as swirl_env.benchmarks: the main job and the performance suite."""
