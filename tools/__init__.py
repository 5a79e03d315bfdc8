"""imported as swirl_env.tools: what a policy can call."""
