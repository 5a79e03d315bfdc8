"""Plays vector environments with fixed actions and compares, to the last info, what they give."""

import numpy as np


def play(venv, actions, steps=12, seed=7):
    """Everything that a vector environment gives over some steps, infos included."""
    log = [venv.reset(seed=seed)]
    for t in range(steps):
        chosen = tuple(actions[(t * 3 + i) % len(actions)] for i in range(venv.num_envs))
        log.append(venv.step(chosen))
    venv.close()
    return log


def play_singles(make, n, actions, steps=12, seed=7):
    """The same from n environments by themselves, each with the seed and the actions that it has among n; (obs, reward, ...)."""
    logs = []
    for i in range(n):
        env = make()
        log = [env.reset(seed=seed + i)]
        over = False
        for t in range(steps):
            if over:
                observation, info = env.reset()
                log.append((observation, 0.0, False, False, info))
            else:
                log.append(env.step(actions[(t * 3 + i) % len(actions)]))
            over = log[-1][2] or log[-1][3]
        env.close()
        logs.append(log)
    return logs


def of_one(log, i):
    """What environment i of a vector environment gave, in the form of a single one."""
    first, *rest = log
    steps = [(o[i], float(r[i]), bool(e[i]), bool(t[i]), info_of(infos, i)) for o, r, e, t, infos in rest]
    return [(first[0][i], info_of(first[1], i)), *steps]


def info_of(infos, i):
    """The info of environment i out of Gymnasium's columns."""
    return {
        key: info_of(value, i) if isinstance(value, dict) else value[i]
        for key, value in infos.items()
        if not key.startswith("_") and ("_" + key not in infos or infos["_" + key][i])
    }


def same(a, b):
    """Whether two logs are equal, arrays with their types."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.tolist() == b.tolist()
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
