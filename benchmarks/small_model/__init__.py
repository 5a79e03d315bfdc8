"""SmolLM2-135M with LoRA on a CPU: ``python -m swirl_env.benchmarks.small_model``."""
