"""Updates of GRPO, one module per side."""
