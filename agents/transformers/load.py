"""Loads causal language models and their tokenizers: hub names, local folders, and GGUF files.

transformers reads GGUF by dequantising it, which is slow, and refuses to save the result. So a GGUF file is converted once
to an ordinary float32 checkpoint in the cache folder, under the hash of its content, and loaded from there afterwards.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import mmap
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from swirl_env.agents.transformers.hub import local_path, locate, not_found
from swirl_env.agents.transformers.interfaces import CausalLM, Tokenizer
from swirl_env.cache import build_cached, cache_root, file_fingerprint
from swirl_env.errors import ConfigError, DataNotFound, MissingExtra, SwirlError
from swirl_env.loading import ONE_AT_A_TIME

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NEEDS_PEFT = "LoRA adapters need the package 'peft'. Install it with: pip install 'swirl-env[train]'"
"""The error if it is missing."""
_ADAPTER_FILE = "adapter_config.json"
_CONVERSION = 1
"""Raised whenever the conversion gives other files, so that old ones are left alone."""
_DIGIT_BY_DIGIT = ("smollm", "starcoder", "refact", "command-r", "codeshell")
"""Pre-tokenizers (as GGUF names them) that take digits one by one, which transformers' GGUF reader leaves out."""
_OWN_CODE = (
    "which brings code of its own, and code from a model's folder runs only on request; if you trust it, set "
    "trust_remote_code=true"
)


def pick_device(device: str) -> torch.device:
    """Returns the device of a name; ``auto`` is CUDA, else Apple's GPU, else the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_model(
    model: str, dtype: str = "float32", device: str = "auto", adapter: str | None = None, trust_remote_code: bool = False
) -> CausalLM:
    """Returns the model in evaluation mode.

    Args:
        model: hub name, folder, path of a ``.gguf`` file, or ``package:NAME`` (see `resolve`).
        dtype: a key of `DTYPES`.
        device: see `pick_device`.
        adapter: folder or hub name of a LoRA adapter; it stays apart from the weights, as training has it.
        trust_remote_code: whether Python code that the model's folder brings may run.

    Raises:
        DataNotFound: if one of them is not there, or cannot be loaded.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is one of {', '.join(DTYPES)}; got {dtype!r}.")
    with ONE_AT_A_TIME, quiet(), _naming(model):
        place, numbers = resolve(model), DTYPES[dtype]
        loaded: Any = AutoModelForCausalLM.from_pretrained(place, dtype=numbers, trust_remote_code=trust_remote_code)
    if adapter is not None:
        loaded = add_adapter(loaded, adapter)
    return cast(CausalLM, loaded.to(pick_device(device)).eval())


def add_adapter(model: CausalLM, adapter: str, trainable: bool = False) -> CausalLM:
    """Returns the model with a LoRA adapter next to its weights.

    Args:
        model: the bare model.
        adapter: folder or hub name.
        trainable: whether it is to be trained further.

    Raises:
        MissingExtra: if peft is not installed.
        DataNotFound: if the adapter is not there, or cannot be loaded.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingExtra(NEEDS_PEFT)
    from peft import PeftModel

    place = locate(adapter, _ADAPTER_FILE, "adapter")
    if Path(place).is_dir() and not (Path(place) / _ADAPTER_FILE).is_file():  # peft would go on to ask the hub, a minute long
        raise not_found(adapter, f"which is a folder without {_ADAPTER_FILE}; check the path", "adapter")
    with quiet(), _naming(adapter, "adapter"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name that it renamed
        return cast(CausalLM, PeftModel.from_pretrained(cast(Any, model), place, is_trainable=trainable))


def load_tokenizer(model: str, trust_remote_code: bool = False) -> Tokenizer:
    """Returns the tokenizer of a model (see `load_model`)."""
    with quiet(), _naming(model):
        return cast(Tokenizer, AutoTokenizer.from_pretrained(resolve(model), trust_remote_code=trust_remote_code))


def resolve(model: str) -> str:
    """Returns what transformers loads for `model`: a folder, or a name that the hub has.

    ``package:NAME`` stands for the first ``.gguf`` file inside the installed Python package NAME.

    Raises:
        DataNotFound: if the package, or the file that the name means, is not there.
    """
    if model.startswith("package:"):
        return str(convert_gguf(packaged_gguf(model.removeprefix("package:"))))
    if local_path(model).suffix == ".gguf":
        return str(convert_gguf(local_path(model)))
    return locate(model)


@contextlib.contextmanager
def _naming(name: str, what: Literal["model", "adapter"] = "model") -> Iterator[None]:
    """Turns errors of the libraries into one that names the model or adapter."""
    try:
        yield
    except SwirlError:
        raise
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(f"Expected an ordinary {what}; got {name!r}, {_OWN_CODE}.") from error
        reason = " ".join(str(error).split()).partition(". ")[0][:200].rstrip(" .")
        raise not_found(name, f"which cannot be loaded ({reason}); check what it holds", what) from error


def packaged_gguf(package: str) -> Path:
    """Returns the first GGUF file inside an installed package; the package is not imported."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        files = sorted(Path(folder).rglob("*.gguf"))
        if files:
            return files[0]
    what = "holds no .gguf file" if spec else "is not installed"
    raise DataNotFound(f"The model 'package:{package}' needs the Python package {package!r}, which {what}.")


def convert_gguf(path: Path) -> Path:
    """Returns the folder with the converted checkpoint of a GGUF file; converts it if that was not done yet."""
    if not path.is_file():
        raise DataNotFound(f"No GGUF file at {path}.")
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra("GGUF files need the package 'gguf'. Install it with: pip install 'swirl-env[train]'")
    target = cache_root() / "gguf" / f"{path.stem}-{file_fingerprint(path)[:16]}-v{_CONVERSION}"
    return build_cached(target, lambda folder: _convert(path, folder))


def _convert(path: Path, folder: Path) -> None:
    with ONE_AT_A_TIME, quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        _split_digits(tokenizer, path)
        tokenizer.save_pretrained(folder)
        read: Any = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
        # The model that came from GGUF counts as quantised and will not be saved; one built over its tensors will.
        config = copy.deepcopy(read.config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            plain = type(read)(config)
        plain.load_state_dict(read.state_dict(), assign=True)
        plain.tie_weights()
        plain.generation_config = read.generation_config
        plain.save_pretrained(folder)


def _split_digits(tokenizer: Any, path: Path) -> None:
    """Makes a tokenizer take digits one by one if the file's pre-tokenizer does."""
    from tokenizers import pre_tokenizers

    if _pre_tokenizer(path) in _DIGIT_BY_DIGIT:
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])


def _pre_tokenizer(path: Path) -> str:
    """Returns what a GGUF file calls its pre-tokenizer; ``""`` if it says nothing.

    Searched by its key, as reading all of the header takes seconds: the key with its length before it, then the type of the
    value (8, a string), its length, and the string.
    """
    key = b"tokenizer.ggml.pre"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(struct.pack("<Q", len(key)) + key + struct.pack("<I", 8))
        if at < 0:
            return ""
        start = at + 8 + len(key) + 4
        (length,) = struct.unpack("<Q", data[start : start + 8])
        return data[start + 8 : start + 8 + min(length, 100)].decode("utf-8", "replace")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' progress bars and advice off the terminal, and puts its settings back."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
