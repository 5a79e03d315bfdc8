"""imported as swirl_env.agents: policies, from scripted experts to language models."""
