"""Plugins for hydra: config groups whose choices are looked up by name when they are chosen and not before.

Hydra discovers them through the namespace package ``hydra_plugins``, so an application of the user's own can compose the tree:

    @hydra.main(config_path="conf", config_name="my_app", version_base="1.3")   # my_app.yaml: hydra.searchpath:
    def main(config): ...                                                       #   [pkg://swirl_env.conf]
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

from swirl_env.config.plugins import GROUPS, choices, defaults, is_choice, is_open, section


class PluginSource(ConfigSource):
    """Serves ``agent/scripted``, ``tool/my_pkg.mod:MyTool`` and so on: a name and the options of its signature.

    Since hydra asks for what is named and for nothing else, no other plugin is imported, and names work wherever hydra
    takes one: command line, sweeps, defaults lists, config folders, any launcher.
    """

    @staticmethod
    def scheme() -> str:
        """Returns the scheme of this source, as in ``swirl://plugins``."""
        return "swirl"

    def available(self) -> bool:
        """Returns True: names can always be looked up."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether this is one of our groups."""
        return config_path.rstrip("/") in GROUPS

    def is_config(self, config_path: str) -> bool:
        """Whether this is ``group/name`` of a plugin."""
        group, name = _split(config_path)
        return group in GROUPS and bool(name) and is_choice(group, name)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Returns the groups, or the names in one."""
        group, name = _split(config_path)
        if not group:
            return [] if results_filter == ObjectType.CONFIG else list(GROUPS)
        return choices(group) if group in GROUPS and not name and results_filter != ObjectType.GROUP else []

    def load_config(self, config_path: str) -> ConfigResult:
        """Imports the plugin and returns its options."""
        group, name = _split(config_path)
        config = DictConfig(defaults(group, name), flags={"struct": not is_open(group, name)})
        for option in config:
            if config._get_node(option) is not None and isinstance(config._get_node(option), DictConfig):
                config._get_node(option)._set_flag("struct", False)  # type: ignore[union-attr]
        return ConfigResult(self.provider, f"{self.scheme()}://{self.path}", config, {"package": section(group, name)})


class PluginPath(SearchPathPlugin):
    """Puts the source behind the packaged tree and the user's ``--config-dir``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Adds the source."""
        search_path.append("swirl", "swirl://plugins")


def register() -> None:
    """Makes hydra know both; harmless when repeated."""
    plugins = Plugins.instance()
    for plugin in (PluginSource, PluginPath):
        if plugin.__name__ not in {known.__name__ for known in plugins.discover(plugin.__mro__[1])}:
            plugins.register(plugin)


def _split(config_path: str) -> tuple[str, str]:
    group, _, name = config_path.strip("/").partition("/")
    return group, name.removesuffix(".yaml")
