"""imported as swirl_env.algos: credit, losses, batches, the trainer, and one file an algorithm."""
