"""Finds models on the Hugging Face hub, or among those that came from there before; asks once and never for long."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from swirl_env.errors import DataNotFound

PATIENCE_S = 5.0
"""How long the hub may take to say whether it has a model."""


def local_path(name: str) -> Path:
    """Returns a name as a path, with ``~`` written out."""
    return Path(os.path.expanduser(name))


def locate(name: str, file: str = "config.json", what: Literal["model", "adapter"] = "model") -> str:
    """Returns what transformers loads for a name: its folder, the name if the hub answers, or else the cached copy.

    The libraries below try for long whether the hub is there, once per file, even if they have all files already.

    Args:
        name: a folder or a name on the hub.
        file: what the folder holds in any case.
        what: what is looked for, for the error.

    Raises:
        DataNotFound: if there is no such folder, the hub does not have it or cannot be reached, and no copy is cached.
    """
    if name.strip() and local_path(name).is_dir():
        return str(local_path(name))
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise not_found(name, "which is neither there nor a name that the hub could have; check the path", what) from error
    try:
        get_hf_file_metadata(hf_hub_url(name, file), timeout=PATIENCE_S)
        return name
    except EntryNotFoundError:
        return name  # the hub has it, though without this file: whoever loads it says what is lacking
    except Exception as error:  # whatever the network does: it is no reason to do without a copy that is here
        copy = try_to_load_from_cache(name, file)
        if isinstance(copy, str):
            return str(Path(copy).parent)
        raise not_found(name, _reason(error), what) from error


def not_found(name: str, reason: str, what: Literal["model", "adapter"] = "model") -> DataNotFound:
    """Returns the error for a model that is not there; `reason` says why, and what to do."""
    files = ", a .gguf file, package:NAME" if what == "model" else ""
    return DataNotFound(
        f"Expected {'an' if what[0] in 'aeiou' else 'a'} {what} as a local folder{files} or a hub name; got {name!r}, {reason}."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return "which the hub gives only to those who asked for access on its page and logged in (hf auth login)"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "which is no folder here and which the hub does not have, or not for you; check the name, or log in (hf auth login)"
        )
    detail = " ".join(str(error).split())[:80].rstrip(" .") or type(error).__name__
    return f"which is no folder here and not cached, and the hub cannot be reached ({detail}); check the path, or the network"
