"""Packed rows and trees give the plain log-probs whatever the layers of a model see, or are refused."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
transformers = pytest.importorskip("transformers", reason="the tests run tiny models")
pytest.importorskip("accelerate", reason="the trainer stands on accelerate")

from swirl_env.algos.batch import TokenStep  # noqa: E402
from swirl_env.algos.layout_check import check_layouts  # noqa: E402
from swirl_env.algos.scoring import ActionScorer, freeze_other_modalities  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402

T = transformers
SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 2, "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
HEADS = {**SIZES, "head_dim": 8}
DELTA = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
DELTA |= {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}
STATES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 8}
WINDOWED = {
    "llama": lambda: T.LlamaForCausalLM(T.LlamaConfig(**SIZES)),
    "mistral": lambda: T.MistralForCausalLM(T.MistralConfig(**SIZES, sliding_window=4)),
    "gemma2": lambda: T.Gemma2ForCausalLM(T.Gemma2Config(**HEADS, sliding_window=4)),
    "gemma3": lambda: T.Gemma3ForCausalLM(T.Gemma3TextConfig(**HEADS, sliding_window=4, layer_types=KINDS)),
    "qwen3": lambda: T.Qwen3ForCausalLM(T.Qwen3Config(**HEADS, sliding_window=4, use_sliding_window=True, layer_types=KINDS)),
    "gpt_oss": lambda: T.GptOssForCausalLM(T.GptOssConfig(**HEADS, sliding_window=4, num_local_experts=2, num_experts_per_tok=1)),
    "phi3": lambda: T.Phi3ForCausalLM(T.Phi3Config(**SIZES, sliding_window=4)),
    "llama4": lambda: T.Llama4ForCausalLM(
        T.Llama4TextConfig(**HEADS, attention_chunk_size=4, num_local_experts=2, intermediate_size_mlp=32)
    ),
    "gpt2": lambda: T.GPT2LMHeadModel(
        T.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0)
    ),
}
KINDS = ["sliding_attention", "full_attention"]
STATEFUL = {
    "qwen3_next": lambda: T.Qwen3NextForCausalLM(T.Qwen3NextConfig(**{**HEADS, "num_hidden_layers": 4}, **DELTA)),
    "lfm2": lambda: T.Lfm2ForCausalLM(
        T.Lfm2Config(**SIZES, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)
    ),
    "mamba": lambda: T.MambaForCausalLM(T.MambaConfig(**STATES)),
    "mamba2": lambda: T.Mamba2ForCausalLM(T.Mamba2Config(**STATES, num_heads=4, head_dim=8, n_groups=1)),
}


def scaled(make):
    """A model whose log-probs depend on its context: with the usual small weights hardly anything would differ."""
    torch.manual_seed(0)
    model = make().eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.parametrize("name", WINDOWED)
def test_windowed_layers_see_the_same_in_packed_rows_and_trees(name):
    model = scaled(WINDOWED[name])
    for packed, tree in ((True, False), (False, True), (True, True)):
        check_layouts(ActionScorer(model), packed=packed, tree=tree)
    # An oracle of its own: the model's logits on each step alone, without any mask of ours.
    long = tuple(range(1, 15))
    steps = [TokenStep(long, (3, 4), (), 0), TokenStep(long, (5, 6, 7), (), 0), TokenStep((8, 9), (1, 2), (), 1)]
    values = Trainer(model, TrainConfig(pack=64, tree=True)).logprobs(steps)
    for step, value in zip(steps, values, strict=True):
        ids = torch.tensor([[*step.prompt_ids, *step.token_ids]])
        with torch.no_grad():
            logp = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)[0]
        at = range(len(step.prompt_ids) - 1, ids.shape[1] - 1)
        expected = [logp[i, token].item() for i, token in zip(at, step.token_ids, strict=True)]
        assert value == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("option", [{"pack": 64}, {"tree": True}])
def test_layers_that_carry_a_state_refuse_packing_and_trees(name, option):
    model = scaled(STATEFUL[name])
    with pytest.raises(ConfigError, match=rf"trainer\.{next(iter(option))} .*Leave trainer\.\w+ off for this model"):
        Trainer(model, TrainConfig(**option))
    Trainer(model, TrainConfig())  # plain rows are fine


def test_a_mask_that_ignores_a_window_is_caught_by_the_check(monkeypatch):
    model = scaled(WINDOWED["mistral"])
    scorer = ActionScorer(model)
    monkeypatch.setattr("swirl_env.algos.masks._sliding", lambda positions, config: torch.tensor(True))
    with pytest.raises(ConfigError, match=r"trainer\.pack changes this model's log-probs by"):
        check_layouts(scorer, packed=True, tree=False)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_rounding_in_bfloat16_is_no_reason_to_refuse_and_a_wrong_mask_still_is(name, monkeypatch):
    scorer = ActionScorer(scaled(WINDOWED[name]).bfloat16())
    rounding = "swirl_env.algos.layout_check._TOLERANCE"
    monkeypatch.setattr(rounding, {torch.bfloat16: 1e-9})  # as if rounding alone went beyond what needs no explanation
    for packed, tree in ((True, False), (False, True)):
        check_layouts(scorer, packed=packed, tree=tree)
    inputs = ActionScorer._inputs
    monkeypatch.setattr(ActionScorer, "_inputs", lambda self, batch: inputs(self, dataclasses.replace(batch, mask=None)))
    with pytest.raises(ConfigError, match="changes this model's log-probs"):
        check_layouts(scorer, packed=False, tree=True)


def text_and_images():
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14}
    config = T.Gemma3Config(
        text_config=HEADS, vision_config={**vision, "image_size": 28}, mm_tokens_per_image=4,
        image_token_index=39, boi_token_index=38, eoi_token_index=37,
    )  # fmt: skip
    return T.Gemma3ForConditionalGeneration(config)


def test_a_model_of_text_and_images_trains_its_text_part_alone():
    model = text_and_images()
    trainer = Trainer(model, TrainConfig(lr=1e-2))
    assert trainer.weights and not any("vision" in name or "projector" in name for name in trainer.weights)
    step = TokenStep((1, 2, 3), (4, 5))
    assert trainer.update([step], [1.0], [True])["stepped"] == 1
    # With DDP a weight without a gradient fails the second update; none is left here.
    trainer.scorer(_batch(step)).sum().backward()
    assert all(weight.grad is not None for weight in trainer.weights.values())


def _batch(step):
    from swirl_env.algos.batch import chains, collate

    return collate(chains([step]))


def test_experts_that_no_token_chose_stay_trainable():
    model = WINDOWED["gpt_oss"]()
    freeze_other_modalities(model)
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_model_that_cannot_run_on_text_is_refused_in_a_sentence():
    class Broken(T.LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            raise AttributeError("no attribute 'image_outputs'")

    with pytest.raises(ConfigError, match="Broken cannot be run on text alone: no attribute 'image_outputs'"):
        ActionScorer(Broken(T.LlamaConfig(**SIZES)))
