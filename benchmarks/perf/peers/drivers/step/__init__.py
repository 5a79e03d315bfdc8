"""Steps of environments, one module per side."""
