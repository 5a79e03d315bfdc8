"""The config groups of swirl-env for any hydra application that composes ``pkg://swirl_env.conf``.

Hydra imports every module of the namespace package ``hydra_plugins``; it has no ``__init__.py`` and is shared by distributions.
"""

from swirl_env.config.hydra_plugins import PluginPath, PluginSource

__all__ = ["PluginPath", "PluginSource"]
