"""The contract of algorithms: what can be told without a policy; `swirl train algo=... updates=2` runs one."""

from __future__ import annotations

import inspect

from swirl_env.contract.rules import Unchecked, expect, shown


def has_train(algo: Unchecked) -> None:
    """Has a method `train`."""
    method = getattr(algo, "train", None)
    expect(callable(method), f"expected a method `train(run)`, got {shown(method)}; add it to {type(algo).__name__}.")


def train_takes_the_run(algo: Unchecked) -> None:
    """train(run) needs the run and nothing else: options belong to the constructor, so that the command line finds them."""
    try:
        inspect.signature(algo.train).bind(None)
    except TypeError as error:
        expect(False, f"expected `train` to be callable with the run alone, got: {error}; move its options to the constructor.")


def train_is_no_coroutine(algo: Unchecked) -> None:
    """train(run) does the training before it returns: it is no generator and no coroutine function."""
    lazy = inspect.isgeneratorfunction(algo.train) or inspect.iscoroutinefunction(algo.train)
    expect(not lazy, "expected `train` to train before it returns, got a generator or coroutine, which would train nothing.")


RULES = (has_train, train_takes_the_run, train_is_no_coroutine)
GATES = (has_train,)
TWIN_RULES = ()
