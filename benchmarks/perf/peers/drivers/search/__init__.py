"""Retrieval, one module per side."""
