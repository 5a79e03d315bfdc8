"""The hydra application behind ``swirl STAGE key=value``: configuration, plugins as groups, help and error messages."""
