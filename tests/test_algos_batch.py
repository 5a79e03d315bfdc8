"""Token batches: one forward equals K forwards, packed equals apart, trees equal rows, and only sampled tokens carry loss."""

import random

import pytest

torch = pytest.importorskip("torch", reason="token batches need torch")
transformers = pytest.importorskip("transformers", reason="the tests run a tiny Llama")

from swirl_env.algos import batch as tokens  # noqa: E402
from swirl_env.algos import losses  # noqa: E402
from swirl_env.algos.scoring import ActionScorer  # noqa: E402

VOCAB = 50


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    return transformers.LlamaForCausalLM(config).eval()


def episode(rng, number, k, prefix_preserving=True):
    """K steps whose states grow as in an episode: state, action, observation, ..."""
    state = [rng.randrange(VOCAB) for _ in range(rng.randint(2, 9))]
    steps = []
    for _ in range(k):
        action = [rng.randrange(VOCAB) for _ in range(rng.randint(1, 5))]
        steps.append(tokens.TokenStep(tuple(state), tuple(action), (), number))
        if not prefix_preserving:
            state = [*state[:2], rng.randrange(VOCAB)]
        state = state + action + [rng.randrange(VOCAB) for _ in range(rng.randint(0, 6))]
    return steps


def branches(rng, number, k, n):
    """The steps of an episode, and n more actions sampled at each of its states."""
    steps = episode(rng, number, k)
    more = []
    for step in steps:
        more.append(step)
        for _ in range(n):
            action = tuple(rng.randrange(VOCAB) for _ in range(rng.randint(1, 5)))
            more.append(tokens.TokenStep(step.prompt_ids, action, (), number))
    return [*more, more[-1]]  # one action twice


def one_by_one(model, steps):
    """The oracle: each step in a pass of its own, through the model's own logits."""
    results = []
    for step in steps:
        ids = torch.tensor([[*step.prompt_ids, *step.token_ids]])
        logp = torch.log_softmax(model(ids).logits[0].float(), -1)
        at = range(len(step.prompt_ids) - 1, ids.shape[1] - 1)
        results.append(torch.stack([logp[i, ids[0, i + 1]] for i in at]))
    return results


def scored(model, steps, rows):
    """Log-probs of each step from laid out rows, in order."""
    out = tokens.collate(rows)
    logp = ActionScorer(model, chunk=7)(out)
    results = []
    for number, step in enumerate(steps):
        mine = out.step == number
        order = out.offset[mine].argsort()
        assert out.targets[mine][order].tolist() == list(step.token_ids)
        results.append(logp[mine][order])
    return results


def gradient(model, logps, weights):
    model.zero_grad()
    sum(w * p.sum() for w, p in zip(weights, logps, strict=True)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def layouts(steps):
    yield "chains", tokens.chains(steps)
    yield "packed chains", list(tokens.pack(tokens.chains(steps), 60))
    yield "trees", tokens.trees(steps)
    yield "packed trees", list(tokens.pack(tokens.trees(steps), 200))
    yield "trees of several episodes", tokens.trees(steps, 1_000, 10_000)


def of_one_question(rng, number, k):
    """An episode that begins like all others of its kind, and goes on as `episode` does."""
    start = tuple(range(20, 32))
    return [tokens.TokenStep(start + s.prompt_ids, s.token_ids, s.behaviour, number) for s in episode(rng, number, k)]


@pytest.mark.parametrize("kind", ["preserving", "rewriting", "branching", "mixed", "one question"])
@pytest.mark.parametrize("seed", range(4))
def test_every_layout_gives_the_log_probs_and_gradients_of_single_rows(model, kind, seed):
    rng = random.Random(seed)
    steps = []
    for number in range(3):
        k = rng.randint(1, 4)
        if kind == "one question":
            steps += of_one_question(rng, number, k)
        elif kind == "branching" or (kind == "mixed" and number == 1):
            steps += branches(rng, number, k, 2)
        else:
            steps += episode(rng, number, k, prefix_preserving=kind != "rewriting" and number != 2)
    weights = [rng.uniform(-1, 1) for _ in steps]
    expected = one_by_one(model, steps)
    wanted = gradient(model, expected, weights)
    for name, rows in layouts(steps):
        results = scored(model, steps, rows)
        for a, b in zip(results, expected, strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-6, msg=name)
        error = (gradient(model, results, weights) - wanted).norm() / wanted.norm()
        assert error < 1e-5, (name, float(error))


def test_k_steps_share_one_row_where_they_continue_one_another():
    steps = episode(random.Random(1), 0, 5) + episode(random.Random(2), 1, 3)
    rows = tokens.chains(steps)
    assert [len(row) for row in rows] == [1, 1]
    assert tokens.row_tokens(rows[0]) == steps[4].size and tokens.row_tokens(rows[1]) == steps[7].size
    assert tokens.collate(rows).mask is None
    # history rewritten: nothing to share without a tree
    assert len(tokens.chains(episode(random.Random(1), 0, 4, prefix_preserving=False))) == 4


def test_equal_states_of_other_episodes_are_not_merged():
    step = tokens.TokenStep((1, 2), (3,), (), 0)
    other = tokens.TokenStep((1, 2, 3), (4,), (), 1)
    assert len(tokens.chains([step, other])) == 2


def test_a_tree_holds_every_shared_stretch_once():
    rng = random.Random(3)
    steps = branches(rng, 0, 4, 6)
    (tree,) = tokens.trees(steps)
    assert tokens.row_tokens(tree) < sum(s.size for s in steps) / 4
    alone = {tuple((*s.prompt_ids, *s.token_ids)[:i]) for s in steps for i in range(1, s.size + 1)}
    assert tokens.row_tokens(tree) == len(alone)  # a trie has one node a distinct prefix


def test_episodes_of_one_question_share_a_row_as_long_as_that_is_less_work():
    def group(n, prompt, action):
        return [tokens.TokenStep(tuple(range(prompt)), tuple(range(1_000 * i, 1_000 * i + action))) for i in range(1, n + 1)]

    def rows(steps, width, limit=10_000):
        steps = [tokens.TokenStep(s.prompt_ids, s.token_ids, (), i) for i, s in enumerate(steps)]
        return [tokens.row_tokens(row) for row in tokens.trees(steps, width, limit)]

    assert rows(group(4, 100, 10), width=1_000) == [140]  # the prompt once, four actions
    assert rows(group(4, 110, 64), width=576) == [366] and rows(group(4, 110, 272), width=576) == [382] * 4  # as was measured
    assert rows(group(4, 100, 10), width=0) == [110] * 4  # as for a model of unknown size
    assert rows(group(4, 10, 100), width=1) == [110] * 4  # attention over others' actions would cost more than the prompt
    assert rows(group(4, 100, 10), width=1_000, limit=125) == [120, 120]
    apart = [*group(2, 100, 10), tokens.TokenStep((7, 7, 7), (8,)), *group(1, 100, 10)]
    assert rows(apart, width=1_000) == [120, 4, 110]


def test_only_sampled_tokens_carry_loss(model):
    """The gradient through the input embeddings' rows is no oracle here: the loss must not change with a prompt's target."""
    steps = episode(random.Random(5), 0, 3)
    out = tokens.collate(tokens.chains(steps))
    sampled = sum(len(s.token_ids) for s in steps)
    assert len(out.targets) == sampled
    actions = set()
    for s in steps:
        actions |= set(range(len(s.prompt_ids), s.size))
    assert {int(p) + 1 for p in out.position} == actions
    logits = torch.zeros(out.input_ids.shape[1], VOCAB, requires_grad=True)
    loss = losses.policy_gradient(
        torch.log_softmax(logits, -1)[out.position].gather(-1, out.targets[:, None]).squeeze(-1), out.step, torch.ones(3), 3
    )
    loss.backward()
    carrying = set(logits.grad.abs().sum(-1).nonzero().flatten().tolist())
    assert carrying == {i - 1 for i in actions}


def test_packing_and_micro_batches_lose_nothing():
    steps = [s for n in range(20) for s in episode(random.Random(n), n, 3)]
    rows = tokens.chains(steps)
    packed = list(tokens.pack(rows, 64))
    assert len(packed) < len(rows) and all(tokens.row_tokens(r) <= 64 or len(r) == 1 for r in packed)
    assert sorted(id(s) for r in packed for s in r) == sorted(id(s) for r in rows for s in r)
    groups = list(tokens.micro_batches(rows, 100))
    assert sum(map(len, groups)) == len(rows)
    assert all(len(g) * max(map(tokens.row_tokens, g)) <= 100 or len(g) == 1 for g in groups)


def test_an_action_needs_a_prompt():
    with pytest.raises(ValueError, match="give it a prompt"):
        tokens.collate(tokens.chains([tokens.TokenStep((), (1, 2))]))


def test_heads_that_are_no_bare_projection_fall_back_to_full_logits(model):
    steps = episode(random.Random(7), 0, 3)
    plain = ActionScorer(model)
    assert plain.plain_head
    full = ActionScorer(model)
    full.plain_head = False
    out = tokens.collate(tokens.chains(steps))
    torch.testing.assert_close(plain(out), full(out), atol=2e-6, rtol=2e-6)
    config = transformers.GemmaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    assert ActionScorer(transformers.GemmaForCausalLM(config)).plain_head
    capped = transformers.Gemma2Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.5,
        attn_implementation="eager",
    )
    scorer = ActionScorer(transformers.Gemma2ForCausalLM(capped).eval())
    assert scorer.plain_head
    full = ActionScorer(scorer.model)
    full.plain_head = False
    torch.testing.assert_close(scorer(out), full(out), atol=1e-5, rtol=1e-5)
    scaled = transformers.CohereConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, logit_scale=0.25
    )
    assert not ActionScorer(transformers.CohereForCausalLM(scaled)).plain_head


def test_positions_go_on_over_padding_so_that_no_mask_is_made():
    batch = tokens.collate([[tokens.Segment([1, 2, 3, 4])], [tokens.Segment([5, 6])]])
    assert batch.mask is None and batch.position_ids.tolist() == [[0, 1, 2, 3]] * 2
