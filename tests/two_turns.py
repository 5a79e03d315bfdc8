"""A decision problem of two turns: action a in state 0, then b in state 1 + a; a reward per turn, an outcome of the whole."""

import itertools

import numpy as np

from enumerated import probabilities, score

THETA = np.array([[0.3, -0.2], [0.5, 0.1], [-0.4, 0.6]])
FIRST = {0: 0.4, 1: -0.3}
SECOND = {(0, 0): 1.0, (0, 1): -0.5, (1, 0): 0.2, (1, 1): 2.0}
WON = {(0, 0): 0.0, (0, 1): 1.0, (1, 0): 1.0, (1, 1): 0.0}
LAMBDA = 0.7
EPISODES = list(itertools.product((0, 1), repeat=2))


def chance(theta, a, b):
    p = probabilities(theta)
    return p[0, a] * p[1 + a, b]


def expectation(theta, value):
    return sum(chance(theta, *e) * value(*e) for e in EPISODES)


def scores(a, b):
    return score(THETA, 0, a), score(THETA, 1 + a, b)
