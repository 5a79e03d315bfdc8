"""Generation with the passes of a small Llama is that of transformers, bit for bit; other models are left to transformers."""

import pytest

torch = pytest.importorskip("torch", reason="local models need torch")
pytest.importorskip("transformers", reason="local models need transformers")

import copy  # noqa: E402

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from transformers import DynamicCache  # noqa: E402

import tiny_lm  # noqa: E402
from swirl_env.agents.transformers import sampling  # noqa: E402
from swirl_env.agents.transformers.prefix_cache import PrefixCache  # noqa: E402
from swirl_env.agents.transformers.sampling import Request, Sampling, generate  # noqa: E402
from swirl_env.agents.transformers.small_llama import small_llama  # noqa: E402
from swirl_env.algos.embedded import build_model  # noqa: E402
from swirl_env.kv_cache import cache_of, cache_option  # noqa: E402

WORDS = 50
MODEL = build_model(WORDS, seed=0).eval()


@st.composite
def calls(draw):
    """Rows with padding in front, and the pieces in which they are read."""
    rows = draw(st.integers(1, 5))
    pieces = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    padding = draw(st.lists(st.integers(0, pieces[0] - 1), min_size=rows, max_size=rows))
    return padding, pieces, draw(st.integers(0, 2**32))


@torch.inference_mode()
@given(calls())
def test_logits_and_cache_are_those_of_transformers_bit_for_bit(call):
    padding, pieces, seed = call
    length = sum(pieces)
    ids = torch.randint(0, WORDS, (len(padding), length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(len(padding), length, dtype=torch.long)
    for row, count in enumerate(padding):
        mask[row, :count] = 0
    position = mask.cumsum(-1).sub(1).clamp(min=0)
    passes = small_llama(MODEL).up_to(length)
    mine, theirs, start = None, DynamicCache(config=MODEL.config), 0
    for size in pieces:
        part, until = slice(start, start + size), start + size
        logits, mine = passes(ids[:, part], mask[:, :until], position[:, part], mine)
        words = {"input_ids": ids[:, part], "attention_mask": mask[:, :until], "position_ids": position[:, part]}
        out = MODEL(**words, **{cache_option(MODEL): theirs}, use_cache=True, logits_to_keep=1)
        assert torch.equal(logits, out.logits[:, -1]) and cache_of(out) is theirs
        start = until
    for layer, other in zip(mine.layers, theirs.layers, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(layer, (other.keys, other.values), strict=True))


@pytest.mark.parametrize("sampling_", [Sampling(), Sampling(temperature=0), Sampling(temperature=0.7, top_p=0.9)])
def test_generations_are_those_of_transformers(monkeypatch, sampling_):
    used = []

    def passes(model):
        used.append(model)
        return small_llama(model)

    shared = list(range(20))
    first = [Request([*shared, *range(n)], 8 + n, lambda ids: ids[-1] == 3, seed=n) for n in range(6)]
    made = []
    for make in (passes, lambda model: None):
        monkeypatch.setattr(sampling, "small_llama", make)
        prefixes = PrefixCache(1 << 12)
        prefixes.start_call(MODEL)
        turns = [generate(MODEL, first, sampling_, prefixes)]
        prefixes.start_call(MODEL)
        more = [Request([*r.ids, *g.ids, 1, 2], 5, lambda ids: False, seed=9) for r, g in zip(first, turns[0], strict=True)]
        made.append([*turns, generate(MODEL, more, sampling_, prefixes)])
    assert made[0] == made[1] and len(used) == 2


def test_what_small_passes_have_read_transformers_goes_on_with(monkeypatch):
    first, prefixes = [Request([*range(25), n], 4, lambda ids: False, seed=n) for n in range(3)], PrefixCache(1 << 12)
    prefixes.start_call(MODEL)
    turn = generate(MODEL, first, Sampling(), prefixes)
    prefixes.start_call(MODEL)
    more = [Request([*r.ids, *g.ids, 1], 4, lambda ids: False, seed=9) for r, g in zip(first, turn, strict=True)]
    monkeypatch.setattr(sampling, "small_llama", lambda model: None)
    continued, whole = generate(MODEL, more, Sampling(), prefixes), generate(MODEL, more)
    assert [one.ids for one in continued] == [one.ids for one in whole]
    assert [one.logprobs for one in continued] == [pytest.approx(one.logprobs, abs=1e-5) for one in whole]


def test_weights_are_read_again_for_every_generation():
    model = copy.deepcopy(MODEL)
    request = [Request([5, 6, 7], 6, lambda ids: False)]
    before = generate(model, request)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(-3.0)
    assert generate(model, request)[0].logprobs != before[0].logprobs
    (after,) = generate(model, request)
    plain = model(input_ids=torch.tensor([[5, 6, 7, *after.ids]])).logits[0, 2:-1].log_softmax(-1)
    assert after.logprobs == pytest.approx(plain.gather(-1, torch.tensor(after.ids)[:, None])[:, 0].tolist(), abs=1e-5)


def _hooked():
    model = copy.deepcopy(MODEL)
    model.model.layers[1].register_forward_hook(lambda module, inputs, output: output)
    return model


def _wrapped():
    peft = pytest.importorskip("peft", reason="LoRA needs peft")
    return peft.get_peft_model(copy.deepcopy(MODEL), peft.LoraConfig(r=2, target_modules=["q_proj"]))


def _adapted():
    return _wrapped().get_base_model()


def _other_attention():
    model = copy.deepcopy(MODEL)
    model.set_attn_implementation("eager")
    return model


class _Norm(torch.nn.Module):
    weight, variance_epsilon = torch.ones(64), 1e-6

    def forward(self, hidden):
        return 2 * hidden


def _other_norm():
    model = copy.deepcopy(MODEL)
    model.model.layers[0].input_layernorm = _Norm()
    return model


class _Embedding(torch.nn.Embedding):
    def forward(self, ids):
        return 2 * super().forward(ids)


def _other_embedding():
    model = copy.deepcopy(MODEL)
    model.set_input_embeddings(_Embedding(WORDS, 64))
    return model


def _other_forward():
    model = copy.deepcopy(MODEL)
    model.model.layers[0].mlp.forward = lambda hidden: 2 * hidden
    return model


OTHERS = {
    "another class": lambda: tiny_lm.gemma2(WORDS),
    "shared key heads": lambda: tiny_lm.llama(WORDS),
    "bfloat16": lambda: copy.deepcopy(MODEL).to(torch.bfloat16),
    "wide": lambda: build_model(WORDS, 0, width=288),
    "in peft's wrapper": _wrapped,
    "with adapters inside": _adapted,
    "with a hook": _hooked,
    "eager attention": _other_attention,
    "another norm in a layer": _other_norm,
    "another embedding": _other_embedding,
    "another forward on a layer": _other_forward,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_are_left_to_transformers(kind):
    assert small_llama(OTHERS[kind]()) is None


def test_mixed_precision_is_left_to_transformers():
    with torch.autocast("cpu", torch.bfloat16):
        assert small_llama(MODEL) is None
    assert small_llama(MODEL) is not None
