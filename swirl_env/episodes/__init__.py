"""How an episode moves: the engine, the transcript, prompts, action formats and rollouts."""
