"""Items on a pool of workers that die: each is done once. For Ray stands an actor system that loses what it is told to."""

import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import error_of, finish, started
from swirl_env.cluster import ClusterOptions, pool
from swirl_env.errors import ConfigError, MissingExtra, PluginError

TWO = ClusterOptions(name="ray", workers=2)


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class Actors:
    """The part of Ray that a pool uses: calls run one after the other, and those in `deaths` (counted over all) kill their actor.

    A call that kills may have run before (`after`), so that work is done whose result nobody gets.
    """

    def __init__(self, deaths=(), after=False):
        self.deaths, self.after = set(deaths), after
        self.calls = 0
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, RuntimeEnvSetupError=RayTaskError)

    def is_initialized(self):
        return True

    def remote(self, kind):
        return SimpleNamespace(options=lambda **needs: SimpleNamespace(remote=lambda: Handle(self, kind())))

    def wait(self, calls, num_returns, timeout):
        return calls[:num_returns], calls[num_returns:]

    def get(self, call):
        return call.run()

    def kill(self, handle):
        handle.dead = True


class Handle:
    def __init__(self, ray, actor):
        self.ray, self.actor, self.dead = ray, actor, False
        self.build = SimpleNamespace(remote=lambda *args: Call(self, actor.build, args))
        self.exchange = SimpleNamespace(remote=lambda *args: Call(self, actor.exchange, args))


class Call:
    def __init__(self, handle, method, args):
        self.handle, self.method, self.args = handle, method, args

    def run(self):
        ray, handle = self.handle.ray, self.handle
        ray.calls += 1
        dies = ray.calls in ray.deaths
        if not handle.dead and (ray.after or not dies):
            reply = self.method(*self.args)
        if handle.dead or dies:
            handle.dead = True
            raise RayError("gone")
        return reply


class Doubling:
    """Returns twice each item, one per call, the last one first."""

    done = Counter()

    def __init__(self):
        self.items = []

    def description(self):
        return "doubling"

    def exchange(self, items):
        self.items += items
        if not self.items:
            return []
        number, content = self.items.pop()
        Doubling.done[number] += 1
        return [(number, 2 * content)]


def run(monkeypatch, ray, make=Doubling, items=20, **options):
    monkeypatch.setattr(pool, "_import_ray", lambda: ray)
    with pool.Pool(TWO, make) as workers:
        results = list(workers.run(((i, 10 * i) for i in range(items)), **{"backlog": 3, "chunk": 2, **options}))
    return results, workers


@given(st.sets(st.integers(3, 60), max_size=4), st.booleans(), st.integers(1, 6), st.integers(1, 4), st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_every_item_has_one_result_whoever_dies(deaths, after, backlog, chunk, items):
    with pytest.MonkeyPatch.context() as patch:
        results, workers = run(patch, Actors(deaths, after), items=items, backlog=backlog, chunk=chunk)
    assert sorted(results) == [(i, 20 * i) for i in range(items)]
    assert workers.lost <= len(deaths)


def test_items_are_read_as_they_are_needed(monkeypatch):
    monkeypatch.setattr(pool, "_import_ray", lambda: Actors())
    read = []
    with pool.Pool(TWO, Doubling) as workers:
        results = workers.run(((i, read.append(i) or i) for i in range(10_000)), backlog=5, chunk=5)
        for seen, _ in enumerate(results, 1):
            assert len(read) <= seen + 2 * 5
    assert len(read) == 10_000


def test_an_item_that_kills_every_worker_ends_the_run(monkeypatch):
    Doubling.done.clear()
    with pytest.raises(PluginError, match=r"5 workers were lost one after the other before any of them finished anything"):
        run(monkeypatch, Actors(range(10, 1000)))


def test_workers_that_die_while_they_are_built_end_the_run(monkeypatch):
    with pytest.raises(PluginError, match="5 workers were lost"):
        run(monkeypatch, Actors(range(1, 1000)))


def test_workers_that_differ_are_refused(monkeypatch):
    class Other(Doubling):
        made = iter("abc")

        def description(self):
            return next(self.made)

    with pytest.raises(ConfigError, match=r"The workers differ: one is made for b, another for a\. Install the same versions"):
        run(monkeypatch, Actors(), Other)


@pytest.mark.parametrize("error", [ConfigError("no GPU here."), MissingExtra("needs 'torch'.")])
def test_work_that_cannot_be_built_says_why(monkeypatch, error):
    def make():
        raise error

    with pytest.raises(ConfigError, match=f"A worker cannot do this work: {error}"):
        run(monkeypatch, Actors(), make)


def test_an_error_of_the_work_is_the_runs_error(monkeypatch):
    class Failing(Doubling):
        def exchange(self, items):
            raise PluginError("The judge failed on every one of the last 9 calls.")

    with pytest.raises(PluginError, match=r"^The judge failed on every one"):
        run(monkeypatch, Actors(), Failing)


def test_without_ray_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    pool._import_ray.cache_clear()
    with pytest.raises(MissingExtra, match=r"cluster=ray needs 'ray'. Install it with: pip install 'swirl-env\[ray\]'"):
        pool.Pool(TWO, Doubling)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "cluster=rya"], "No cluster named 'rya'. Did you mean 'ray'?"),
        (["judge", "out=x", "cluster=ray", "cluster.workers=0"], "cluster.workers: expected int >= 1; got 0"),
        (["audit", "out=x", "cluster=ray", "cluster.gpu=1"], "Did you mean cluster.gpus?"),
        (["play", "cluster=ray"], "plays in the terminal"),
        (["filter", "out=x", "cluster=ray"], "cluster"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, words, message):
    assert message in error_of(finish(started(tmp_path, *words)))


def test_a_cluster_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("ray")
    for address in ("127.0.0.1:1", "ray://localhost:1"):
        said = finish(started(tmp_path, "generate", "n=2", "cluster=ray", f"cluster.address={address}"))
        assert f"No Ray cluster at {address}: " in error_of(said)
