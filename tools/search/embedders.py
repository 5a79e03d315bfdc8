"""Models that turn texts into vectors: static tables of token vectors, and sentence-transformers.

Both are named by the content of their files, so that embeddings in the cache are never those of other weights.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from swirl_env.cache import file_fingerprint
from swirl_env.errors import ConfigError, DataNotFound, MissingExtra, unknown_name

Vectors = npt.NDArray[np.float32]

_MATRIX = ("embeddings", "embedding.weight", "embedding")
"""Names of the table in a static model's ``.safetensors`` file: those of model2vec and wordllama."""
_OPTIONS = ("model", "dtype", "device")
_DTYPES = ("float32", "bfloat16", "float16")
_TOKENIZERS = 1_000
"""Texts that are tokenised together."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of length 1; the inner product of a query's and a passage's is the passage's score."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the vectors depend on; part of the name of an index."""
        ...

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Returns the vectors of passages, [n, d]."""
        ...

    def embed_query(self, text: str) -> Vectors:
        """Returns the vector of a query, [d]."""
        ...


class StaticEmbedder:
    """The mean of fixed vectors of a text's tokens: no network to run, thousands of passages per second on a CPU.

    Reads what model2vec and wordllama write: a table in a ``.safetensors`` file (with ``weights`` and ``mapping`` of tokens, if
    there are any) and a tokenizer in JSON.

    Args:
        table: the ``.safetensors`` file.
        tokenizer: the tokenizer's file.
    """

    def __init__(self, table: Path, tokenizer: Path) -> None:
        for package in ("safetensors", "tokenizers"):
            _require(package)
        self._table_file, self._tokenizer_file = table, tokenizer
        self.fingerprint = f"static-{_digest(file_fingerprint(table), file_fingerprint(tokenizer))}"

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Returns the vectors of passages, [n, d]; a text without known tokens gets zeros."""
        vectors = np.zeros((len(texts), self._table.shape[1]), dtype=np.float32)
        for start in range(0, len(texts), _TOKENIZERS):
            rows = self._tokenizer.encode_batch(list(texts[start : start + _TOKENIZERS]), add_special_tokens=False)
            for i, row in enumerate(rows, start):
                if ids := [token for token in row.ids if token != self._unknown and token < len(self._table)]:
                    vectors[i] = self._table[ids].mean(axis=0)
        return _normalise(vectors)

    def embed_query(self, text: str) -> Vectors:
        """Returns the vector of a query, [d]."""
        vector: Vectors = self.embed_passages([text])[0]
        return vector

    @functools.cached_property
    def _table(self) -> Vectors:
        """The vector of each token, [V, d]."""
        tensors = _read_tensors(self._table_file)
        table = tensors[next(name for name in _MATRIX if name in tensors)].astype(np.float32)
        if "mapping" in tensors:  # tokens that share a vector
            table = table[tensors["mapping"]]
        if "weights" in tensors:
            table = table * tensors["weights"].astype(np.float32)[:, None]
        return table

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._tokenizer_file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @functools.cached_property
    def _unknown(self) -> int | None:
        """The id of text that the tokenizer does not know; it says nothing about a passage."""
        name = json.loads(self._tokenizer_file.read_text("utf-8")).get("model", {}).get("unk_token")
        token: int | None = self._tokenizer.token_to_id(name) if isinstance(name, str) else None
        return token


class SentenceEmbedder:
    """A model of sentence-transformers, with its own prompts for queries and passages. It is loaded when it is first used.

    Args:
        folder: folder of the model.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: e.g. ``cpu`` or ``cuda``; None takes a GPU if there is one.
    """

    def __init__(self, folder: Path, dtype: str = "float32", device: str | None = None) -> None:
        _require("sentence_transformers")
        self._folder, self._dtype, self._device = folder, dtype, device
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".txt", ".bin"))
        names = [f"{path.relative_to(folder)}:{file_fingerprint(path)}" for path in files]
        self.fingerprint = f"sentence-{_digest(dtype, *names)}"

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Returns the vectors of passages, [n, d]."""
        return self._vectors(self._model.encode_document(list(texts), batch_size=64, **self._output))

    def embed_query(self, text: str) -> Vectors:
        """Returns the vector of a query, [d]."""
        vector: Vectors = self._vectors(self._model.encode_query([text], **self._output))[0]
        return vector

    _output = {"normalize_embeddings": True, "convert_to_numpy": True, "show_progress_bar": False}

    @staticmethod
    def _vectors(output: Any) -> Vectors:
        # Once more in float32: in a shorter type they are of length 1 to three digits only.
        return _normalise(np.asarray(output, dtype=np.float32))

    @functools.cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as hf_logging

        bars = hf_logging.is_progress_bar_enabled()
        hf_logging.disable_progress_bar()
        try:
            return SentenceTransformer(str(self._folder), device=self._device, model_kwargs={"dtype": self._dtype})
        finally:
            if bars:
                hf_logging.enable_progress_bar()


def load_embedder(spec: object) -> Embedder:
    """Returns the embedder of a spec.

    Args:
        spec: the model: a folder, ``package:NAME`` (a model inside an installed package) or a hub name; or a mapping with
            ``model`` and the options ``dtype`` and ``device`` (sentence-transformers only); or a ready `Embedder`.

    Raises:
        ConfigError: if it is none of these.
        DataNotFound: if there is no such model.
    """
    if isinstance(spec, Embedder):
        return spec
    options = dict(spec) if isinstance(spec, Mapping) else {"model": spec}
    for option in options:
        if option not in _OPTIONS:
            raise unknown_name("option of an embedder", str(option), _OPTIONS)
    name, dtype, device = options.get("model"), options.get("dtype", "float32"), options.get("device")
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"An embedder is a folder, package:NAME, a hub name or a mapping with 'model'; got {spec!r:.80}.")
    if dtype not in _DTYPES:
        raise unknown_name("dtype", str(dtype), _DTYPES)
    folder = _folder(name)
    if (table := _static_table(folder)) is not None:
        return StaticEmbedder(*table)
    sentence = next((path.parent for path in sorted(folder.rglob("modules.json"))), folder)
    if not (sentence / "config.json").is_file() and not (sentence / "modules.json").is_file():
        raise DataNotFound(
            "Expected a model of sentence-transformers, or a .safetensors table of token vectors with its tokenizer, "
            f"in {name!r}; there is none. Check what it holds."
        )
    return SentenceEmbedder(sentence, str(dtype), None if device is None else str(device))


def _folder(name: str) -> Path:
    """Returns the folder that a model's name means; a model of the hub is downloaded, or read from the hub's own cache."""
    if name.startswith("package:"):
        package = name.removeprefix("package:")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise DataNotFound(f"The embedder {name!r} needs the Python package {package!r}, which is not installed.")
        return Path(next(iter(spec.submodule_search_locations)))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.count("/") > 1:
        raise DataNotFound(f"The embedder {name!r} is not a folder. Check the path.")
    _require("huggingface_hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors", "*/config.json"]))
    except Exception as error:  # the network, the hub and the name can each be at fault, in many classes of errors
        reason = " ".join(str(error).split())[:120].rstrip(" .") or type(error).__name__
        raise DataNotFound(f"The embedder {name!r} is no folder, and the hub does not give it ({reason}).") from error


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(f"This embedder needs {package!r}. Install it with: pip install 'swirl-env[dense]'")


def _static_table(folder: Path) -> tuple[Path, Path] | None:
    """Returns the files of a static model, table and tokenizer; None if the folder holds none."""
    tokenizers = [path for path in sorted(folder.rglob("*tokenizer*.json")) if "model" in _keys(path)]
    for table in sorted(folder.rglob("*.safetensors")) if tokenizers else []:
        if any(name in _MATRIX for name in _tensor_names(table)):
            near = [path for path in tokenizers if path.parent == table.parent]
            return table, (near or tokenizers)[0]
    return None


def _keys(path: Path) -> set[str]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return set()
    return set(content) if isinstance(content, dict) else set()


def _tensor_names(path: Path) -> list[str]:
    """Returns the names of the tensors in a ``.safetensors`` file, from its header: a length of 8 bytes, then JSON."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            return list(json.loads(file.read(size))) if size < 1 << 27 else []
        except ValueError:
            return []


def _read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    from safetensors.numpy import load_file

    tensors: dict[str, npt.NDArray[Any]] = load_file(path)
    return tensors


def _normalise(vectors: Vectors) -> Vectors:
    """Returns vectors divided by their lengths; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalised: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return normalised


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
