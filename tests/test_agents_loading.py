"""What is loaded, in which precision, and what is not run without being asked for."""

# ruff: noqa: E402 (the tests are skipped if torch is absent, so imports follow that check)
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny_lm
from states import begin
from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.load import load_model, load_tokenizer
from swirl_env.errors import ConfigError

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
Path(__file__).resolve()
Path({mark!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose model and tokenizer are Python code next to the weights; the code leaves a mark when it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    place = tmp_path / "own-model"
    tiny_lm.llama(len(tiny_lm.tokenizer())).save_pretrained(place)
    tiny_lm.tokenizer().save_pretrained(place)
    (place / "own.py").write_text(CODE.format(mark=str(tmp_path / "ran")))
    config = json.loads((place / "config.json").read_text())
    config |= {"model_type": "own", "architectures": ["OwnModel"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (place / "config.json").write_text(json.dumps(config))
    words = json.loads((place / "tokenizer_config.json").read_text())
    words |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    (place / "tokenizer_config.json").write_text(json.dumps(words))
    return place


def test_code_of_a_models_folder_runs_on_request_only(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked at the terminal"))
    for load in (load_model, TransformersAgent):
        with pytest.raises(ConfigError, match=r"brings code of its own.*trust_remote_code=true"):
            load(str(folder))
    assert not (tmp_path / "ran").exists()
    agent = TransformersAgent(str(folder), trust_remote_code=True, device="cpu", max_new_tokens=2)
    assert (tmp_path / "ran").exists() and type(agent.model).__name__ == "OwnModel"
    assert agent.act([begin("q")])[0].error is None


def test_an_ordinary_tokenizer_next_to_code_needs_no_trust(tmp_path: Path) -> None:
    tiny_lm.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    assert load_tokenizer(str(tmp_path)).eos_token_id == tiny_lm.tokenizer().eos_token_id


# Precision


def logprobs_under(model: Any, action: Any, dtype: torch.dtype | None) -> list[float]:
    ids = torch.tensor([action.prompt_ids + action.token_ids])
    with torch.no_grad(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        logits = model(ids).logits[0, len(action.prompt_ids) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(action.token_ids)[:, None])[:, 0].tolist()


@pytest.mark.parametrize("precision", [None, "no", "bf16"])
def test_mixed_precision_reaches_rollouts(precision: str | None) -> None:
    model = tiny_lm.llama(len(tiny_lm.tokenizer()))
    kinds: set[torch.dtype] = set()
    model.model.layers[0].mlp.gate_proj.register_forward_hook(lambda module, inputs, out: kinds.add(out.dtype))
    agent = tiny_lm.agent(model, precision=precision, max_new_tokens=8)
    action = agent.act([begin("Oslo?")])[0]
    expected = torch.bfloat16 if precision == "bf16" else torch.float32
    assert kinds == {expected} and next(model.parameters()).dtype == torch.float32
    under = logprobs_under(model, action, expected if precision == "bf16" else None)
    assert action.logprobs == pytest.approx(under, abs=0.05 if precision == "bf16" else 1e-4)


def test_threads_that_load_at_once_leave_the_library_as_it_was(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=40, tie_word_embeddings=True, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    before = transformers.PreTrainedModel.tie_weights
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(load_model, [str(tmp_path)] * 24))
    assert transformers.PreTrainedModel.tie_weights is before
    assert all(model.get_output_embeddings().weight is model.get_input_embeddings().weight for model in models)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_weights_have_the_dtype_asked_for(tmp_path: Path, dtype: str) -> None:
    tiny_lm.llama(310).save_pretrained(tmp_path)
    assert next(load_model(str(tmp_path), dtype).parameters()).dtype == getattr(torch, dtype)


def test_precisions_tell_agents_apart_and_unknown_ones_are_refused() -> None:
    model = tiny_lm.llama(len(tiny_lm.tokenizer()))
    prints = [tiny_lm.agent(model, precision=precision).fingerprint for precision in (None, "no", "bf16")]
    assert prints[0] == prints[1] != prints[2]
    with pytest.raises(ConfigError, match="precision is one of no, bf16, fp16"):
        tiny_lm.agent(model, precision="int4")
