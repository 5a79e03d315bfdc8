"""What the algorithms of the step-credit family hand to the trainer: the numbers of their papers, on real episodes."""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="the policy is a tiny Llama")

from test_algos_family_state import start, started  # noqa: E402
from test_algos_run import taught  # noqa: E402

from swirl_env.algos.gold import answer_f1, answer_logprobs  # noqa: E402
from swirl_env.algos.igpo import Igpo  # noqa: E402
from swirl_env.algos.slate import Slate, siblings_of  # noqa: E402
from swirl_env.algos.step_dpo import StepDpo  # noqa: E402
from swirl_env.algos.steps import tabulate  # noqa: E402
from swirl_env.algos.trace import Trace  # noqa: E402
from swirl_env.algos.tree_grpo import TreeGrpo  # noqa: E402
from swirl_env.algos.turn_ppo import TurnPpo  # noqa: E402
from swirl_env.algos.vine import Vine  # noqa: E402
from swirl_env.episodes.transcript import subtrajectories  # noqa: E402

__all__ = ["start", "taught"]  # fixtures


def handed(run, algorithm):
    """Trains for one update and returns what the algorithm gave to `run.update`, and the episodes that it sampled."""
    calls, episodes = [], []
    update, rollouts = run.update, run.rollouts

    def sample(*args, **kwargs):
        episodes.extend(rollouts(*args, **kwargs))
        return list(episodes)

    def note(steps, advantages, valid, **more):
        calls.append((list(steps), np.array(advantages), np.array(valid), more))
        return update(steps, advantages, valid, **more)

    run.update, run.rollouts = note, sample
    algorithm.train(run)
    return (*calls[0], episodes)


def logprob(model, prompt, tokens):
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
    return [float(logs[len(prompt) + i - 1, token]) for i, token in enumerate(tokens)]


def test_gold_answers_are_read_where_an_answer_stands(start, tmp_path):
    run = started(tmp_path, start)
    episodes = run.rollouts(4)
    table = tabulate(episodes, run.agent.renderer)
    values = answer_logprobs(run, table, episodes)
    states = [sub.state for t in episodes for sub in subtrajectories(t)]
    for step, state, value in zip(table.steps, states, values, strict=True):
        opening, gold, _ = run.agent.renderer.text_ids(f"<answer>{state.task.answer}</answer>")
        assert value == pytest.approx(logprob(run.agent.model, [*step.prompt_ids, opening], [gold])[0], abs=1e-5)
    wrong = [i for i in range(len(table.steps)) if table.outcome[i] == 0]
    assert set(answer_f1(table, episodes)[wrong]) == {0.0} and len(set(values.round(4))) > 4


@pytest.mark.parametrize("kind", [Igpo, Trace])
def test_gains_of_the_gold_answer_are_normalised_and_summed(kind, start, tmp_path):
    run = started(tmp_path, start, updates=1)
    first = torch.load(start)
    steps, advantages, valid, _, episodes = handed(run, kind(questions_per_update=1, samples=8, scale=False, norm="joint"))
    run.agent.model.load_state_dict(first)  # the policy that was read, before the update
    rewards, which = [], []
    for n, t in enumerate(episodes):
        logs = [
            logprob(run.agent.model, [*run.agent.renderer.ids(sub.state), run.agent.renderer.text_ids("<answer>x")[0]],
                    [run.agent.renderer.text_ids(f"<answer>{t.task.answer}")[1]])[0]
            for sub in subtrajectories(t)
        ]  # fmt: skip
        worth = logs if kind is Trace else [math.exp(x) for x in logs]
        rewards += [b - a for a, b in itertools.pairwise(worth)] + [float(t.outcome.correct)]
        which += [n] * len(t.steps)
    centred = np.array(rewards) - np.mean(rewards)
    expected = [sum(centred[j] for j in range(i, len(which)) if which[j] == which[i]) for i in range(len(which))]
    assert valid.all() and len(steps) == len(expected)
    np.testing.assert_allclose(advantages, expected, atol=1e-5)


def test_a_tree_has_its_leaves_and_every_leaf_trains_all_its_steps(start, tmp_path):
    run = started(tmp_path, start, updates=1)
    branched = []
    branch = run.branch
    run.branch = lambda states, samples, **more: branched.append((states, branch(states, samples, **more))) or branched[-1][1]
    steps, advantages, _, metrics, episodes = handed(run, TreeGrpo(questions_per_update=2, trees=3, nodes=2, iterations=2))
    assert metrics["leaves"] == 2 * 3 * (2 * 2 + 1) == len(episodes) + sum(len(states) for states, _ in branched)
    assert [len(states) for states, _ in branched] == [12, 12]
    leaves = [*episodes, *(t for _, groups in branched for (t,) in groups)]
    assert len(steps) == sum(len(t.steps) for t in leaves) == len(advantages)
    # Nodes are played on from both an episode's beginning and its middle, and from branches in the second round.
    assert {len(state.steps) for states, _ in branched for state in states} >= {0, 1}
    assert {step.episode for step in steps} == set(range(6))
    assert [step.episode for step in steps] == sorted(step.episode for step in steps)


def test_siblings_hold_the_action_that_was_taken_and_cost_one_less(start, tmp_path):
    run = started(tmp_path, start)
    episodes = run.rollouts(5)
    before, taken = run.spent.judge_calls, [step for t in episodes for step in t.steps]
    actions = siblings_of(run, episodes, 3)
    assert run.spent.judge_calls - before == 2 * len(taken)
    assert len(actions.steps) == 3 * len(taken) and actions.state.tolist() == [i for i in range(len(taken)) for _ in range(3)]
    assert [actions.steps[3 * i].token_ids for i in range(len(taken))] == [step.action.token_ids for step in taken]
    assert all(actions.steps[3 * i + k].prompt_ids == actions.steps[3 * i].prompt_ids for i in range(len(taken)) for k in (1, 2))
    flat = [len(set(actions.reward[3 * i : 3 * i + 3])) > 1 for i in range(len(taken))]
    assert actions.informative == pytest.approx(np.mean(flat)) and 0 < actions.informative < 1


def test_slate_normalises_among_siblings(start, tmp_path):
    run = started(tmp_path, start, updates=1)
    steps, advantages, valid, metrics, episodes = handed(run, Slate(episodes_per_update=6, samples=4))
    assert valid.all() and len(steps) == 4 * sum(len(t.steps) for t in episodes)
    groups = advantages.reshape(-1, 4)
    np.testing.assert_allclose(groups.sum(1), 0, atol=1e-9)
    spread = groups.std(1)
    assert set(spread.round(4)) == {0.0, 1.0} and metrics["informative"] == pytest.approx(np.mean(spread > 0))


def test_the_update_of_step_dpo_is_the_gradient_of_its_loss(start, tmp_path):
    """In the third update, when the policy has left the reference: against autograd through the DPO loss itself."""
    run = started(tmp_path, start, updates=3)
    run.trainer.lr = 1e-3
    calls, models = [], []
    update = run.update

    def note(steps, advantages, valid, **more):
        models.append({k: v.clone() for k, v in run.agent.model.state_dict().items()})
        calls.append((list(steps), np.array(advantages), more["count"]))
        return update(steps, advantages, valid, **more)

    run.update = note
    StepDpo(episodes_per_update=6, beta=0.7).train(run)
    (steps, advantages, count), policy = calls[-1], models[-1]
    assert count == len(steps) / 2 > 0 and advantages.sum() == pytest.approx(0)
    model = run.agent.model
    model.load_state_dict(torch.load(start))
    reference = [sum(logprob(model, s.prompt_ids, s.token_ids)) for s in steps]
    model.load_state_dict(policy)
    model.requires_grad_(True)

    def total(step):
        logs = model(input_ids=torch.tensor([[*step.prompt_ids, *step.token_ids]])).logits[0].log_softmax(-1)
        return sum(logs[len(step.prompt_ids) + i - 1, token] for i, token in enumerate(step.token_ids))

    ratios = [total(step) - first for step, first in zip(steps, reference, strict=True)]
    pairs = {}
    for i, step in enumerate(steps):
        pairs.setdefault((*step.prompt_ids, step.episode), []).append(i)
    better, worse = zip(*[sorted(pair, key=lambda i: -advantages[i]) for pair in pairs.values()], strict=True)
    losses = [-torch.nn.functional.logsigmoid(0.7 * (ratios[b] - ratios[w])) for b, w in zip(better, worse, strict=True)]
    exact = torch.autograd.grad(torch.stack(losses).mean(), list(model.parameters()), retain_graph=True)
    mine = torch.autograd.grad(
        -sum(float(a) * ratio for a, ratio in zip(advantages, ratios, strict=True)) / count, list(model.parameters())
    )
    for a, b in zip(exact, mine, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("values", ["advantage", "soft", "hard"])
def test_values_of_branches_become_advantages(values, start, tmp_path):
    run = started(tmp_path, start, updates=1)
    seen = []
    branch = run.branch
    run.branch = lambda states, samples, **more: seen.append(branch(states, samples, **more)) or seen[-1]
    calls = run.spent.judge_calls
    _, advantages, valid, _, episodes = handed(run, Vine(episodes_per_update=6, samples=3, values=values))
    (groups,) = seen
    assert run.spent.judge_calls - calls == sum(len(t.steps) for t in episodes)  # branches are not judged
    means = [np.mean([t.outcome.correct for t in group]) for group in groups]
    expected, i = [], 0
    for t in episodes:
        here = [*means[i : i + len(t.steps)], float(t.outcome.correct)]
        i += len(t.steps)
        after = here[1:] if values != "hard" else [float(x > 0) for x in here[1:]]
        expected += after if values != "advantage" else [b - a for a, b in itertools.pairwise(here)]
    assert valid.all() and advantages.tolist() == pytest.approx(expected)


def test_turn_ppo_begins_as_discounted_returns_of_the_outcome(start, tmp_path):
    """Before the critic has learnt anything its values are 0."""
    run = started(tmp_path, start, updates=1)
    algorithm = TurnPpo(episodes_per_update=8, gamma=0.5, lam=0.8, whiten=False)
    _, advantages, valid, _, episodes = handed(run, algorithm)
    expected = [0.4 ** (len(t.steps) - 1 - i) * float(t.outcome.correct) for t in episodes for i in range(len(t.steps))]
    assert valid.all() and advantages.tolist() == pytest.approx(expected)
