"""Evidence with a real small model, Qwen2.5-Coder-0.5B-Instruct."""
