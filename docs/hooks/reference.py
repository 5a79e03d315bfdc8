"""Adds one page per module of the package to the documentation, so that no list of modules has to be kept by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

PACKAGE = Path(__file__).resolve().parents[2] / "swirl_env"
SECTION = "Reference"


def public_modules() -> list[str]:
    """Returns the dotted names of all modules that a reader may look up: no private ones and no ``__main__``."""
    names = []
    for path in sorted(_python_files(PACKAGE)):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if not any(part.startswith("_") and part != "__init__" for part in parts):
            names.append(".".join(part for part in parts if part != "__init__"))
    return names


def _python_files(folder: Path) -> list[Path]:
    """Returns the Python files below a folder; `Path.rglob` does not follow the links to agents/, tools/ and so on."""
    files = list(folder.glob("*.py"))
    for inner in folder.iterdir():
        if inner.is_dir():
            files += _python_files(inner)
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages to the navigation, one section per package."""
    sections: dict[str, list[dict[str, str]]] = {}
    for name in public_modules():
        parts = name.split(".")
        package = ".".join(parts[:2]) if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else "swirl_env"
        sections.setdefault(package, []).append({name: f"reference/{name}.md"})
    assert config.nav is not None
    config.nav.append({SECTION: [{package: pages} for package, pages in sections.items()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Generates a page for each module."""
    from mkdocs.structure.files import File

    for name in public_modules():
        files.append(File.generated(config, f"reference/{name}.md", content=f"# {name}\n\n::: {name}\n"))
    return files
