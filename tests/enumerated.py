"""A tabular world small enough that every batch of episodes can be enumerated: exact means of gradient estimators."""

import itertools

import numpy as np

# At each of up to 3 steps the policy picks 0 (go on) or 1 (stop), with logits per position. Episodes have length 1 to 3.
# Step rewards depend on position and action, the outcome on the whole episode.
STEP_REWARD = {(0, 0): 0.3, (0, 1): -0.2, (1, 0): 1.1, (1, 1): 0.4, (2, 0): -0.7, (2, 1): 0.9}
OUTCOME = {(1,): 0.2, (0, 1): 1.0, (0, 0, 0): -0.5, (0, 0, 1): 0.7}
THETA = np.array([[0.2, -0.4], [0.5, 0.1], [-0.3, 0.6]])


def probabilities(theta):
    e = np.exp(theta - theta.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def chance(theta, episode):
    p = probabilities(theta)
    return float(np.prod([p[i, a] for i, a in enumerate(episode)]))


def numeric_gradient(f, theta, h=1e-6):
    grad = np.zeros_like(theta)
    for i in np.ndindex(*theta.shape):
        up, down = theta.copy(), theta.copy()
        up[i] += h
        down[i] -= h
        grad[i] = (f(up) - f(down)) / (2 * h)
    return grad


def score(theta, position, action):
    """Grad of log pi(action | position), [3, 2], by hand: onehot - softmax on that position's row."""
    grad = np.zeros_like(theta)
    grad[position] = -probabilities(theta)[position]
    grad[position, action] += 1
    return grad


def expected_estimate(rule, episodes_in_batch):
    """E over all batches of M independent episodes of 1/M sum_i A_i grad log pi(a_i | s_i), enumerated."""
    total = np.zeros_like(THETA)
    for batch in itertools.product(OUTCOME, repeat=episodes_in_batch):
        weight = np.prod([chance(THETA, e) for e in batch])
        flat = [(m, i, a) for m, e in enumerate(batch) for i, a in enumerate(e)]
        advantages = rule(batch, flat)
        gradient = sum(adv * score(THETA, i, a) for adv, (_, i, a) in zip(advantages, flat, strict=True))
        total += weight * gradient / episodes_in_batch
    return total


def value_of_outcomes(theta):
    return sum(chance(theta, e) * r for e, r in OUTCOME.items())


def value_of_step_rewards(theta):
    return sum(chance(theta, e) * sum(STEP_REWARD[i, a] for i, a in enumerate(e)) for e in OUTCOME)


def columns(batch, flat):
    episode = [m for m, _, _ in flat]
    position = [i for _, i, _ in flat]
    rewards = [STEP_REWARD[i, a] for _, i, a in flat]
    outcomes = [OUTCOME[batch[m]] for m in episode]
    return np.ones(len(flat), bool), episode, position, rewards, outcomes
