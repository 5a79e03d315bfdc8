"""Python processes that begin as forks of one that has imported the heavy packages already, and are real processes otherwise.

A new interpreter takes seconds of processor time until torch, transformers and hydra are loaded, which was most of what the tests
of commands took. Here one server for all processes of tests loads them, in one thread, and forks a child for every command; the
child gets its own arguments, folder, environment, pipes and signals, runs as ``__main__``, and ends as an interpreter does.

What begins with a new interpreter all the same: a command whose environment has other variables that packages read while they are
imported (`READ_AT_IMPORT`), and everything on systems that lack the calls. Tests of start-up itself (what is imported when, what
an import prints, seeds of hashes) use `subprocess`.
"""

import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HEAVY = ["accelerate", "hydra", "omegaconf", "torch", "transformers", "swirl_env.benchmarks.training_preload"]
HEAVY += ["pytest", "safetensors.torch", "swirl_env.stages.generate", "swirl_env.stages.eval"]
HEAVY += ["swirl_env.agents.scripted", "swirl_env.algos.return_to_go", "swirl_env.tools.search"]
READ_AT_IMPORT = ("ACCELERATE_LOG", "CUDA", "GOMP", "GOTO", "HF_", "HYDRA_", "KMP_", "LANG", "LC_", "LD_", "MALLOC", "MKL", "MPL")
READ_AT_IMPORT += ("NUMBA", "NUMEXPR", "OMP_", "OPENBLAS", "PATH", "PYTHON", "TORCH_", "TRANSFORMERS", "TOKENIZERS", "TZ", "USE_")
"""Beginnings of names of variables that decide something while packages are imported; `PYTHONPATH` is taken care of."""
SET_BY_PACKAGES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "PYTHONBREAKPOINT", "TOKENIZERS_PARALLELISM")
"""What scikit-learn, joblib, ray, transformers and datasets set in those who use them: no wish of a test, so they fork."""
DEFAULTS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
_ENVIRON = dict(os.environ)
_SUPPORTED = all(hasattr(module, name) for module, name in ((os, "fork"), (os, "pidfd_open"), (socket, "send_fds")))


def start(words, *, cwd=None, env=None, text=True):
    """Starts ``python *words`` (``-m module``, ``-c code`` or a file) with pipes, as `subprocess.Popen` would."""
    env = dict(os.environ if env is None else env)
    if not _SUPPORTED or _read_at_import(env) != _read_at_import(_ENVIRON):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, *words], cwd=cwd, env=env, text=text, preexec_fn=listen, **pipes)
    return _server().fork(words, cwd, env)


def run(words, *, timeout, cwd=None, env=None):
    """Runs ``python *words`` to its end; returns exit code, stdout and stderr as `subprocess.run` does."""
    process = start(words, cwd=cwd, env=env)
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def listen():
    """Makes a process listen to Ctrl-C even where the tests run in the background of a shell, deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read_at_import(env):
    left_out = ("PYTHONPATH", *SET_BY_PACKAGES)
    return {name: value for name, value in env.items() if name.startswith(READ_AT_IMPORT) and name not in left_out}


class Process:
    """A forked command: what tests use of `subprocess.Popen`."""

    stdin = None

    def __init__(self, words, pid, status, stdout, stderr):
        self.args, self.pid, self.returncode = words, pid, None
        self.stdout, self.stderr = stdout, stderr
        self._status, self._texts = status, {stdout: b"", stderr: b""}

    def poll(self):
        """Returns the exit code, minus the signal's number after a signal, or None as long as it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            status = self._status.recv(64)
            assert status, "the server of forked commands is gone"
            self.returncode = os.waitstatus_to_exitcode(int(status))
            self._status.close()
        return self.returncode

    def communicate(self, timeout=None):
        """Returns all of stdout and stderr, when every process that holds them has closed them."""
        until = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for pipe in self._texts:
                if not pipe.closed:
                    selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(None if until is None else max(0.0, until - time.monotonic()))
                if not ready and until is not None and time.monotonic() >= until:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                for key, _ in ready:
                    block = os.read(key.fd, 1 << 16)
                    self._texts[key.fileobj] += block
                    if not block:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
        self.wait(None if until is None else max(0.0, until - time.monotonic()))
        return tuple(self._texts[pipe].decode().replace("\r\n", "\n") for pipe in (self.stdout, self.stderr))

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


class Server:
    """The process that forks, and the way to ask it: whichever process of tests needs it first starts it."""

    def __init__(self):
        # A name that no file has: the first to take it is the one that starts the server, and it is free when the server ends.
        name = f"\0forked-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        while not self._connected(name):  # the server does not listen yet, or has just ended
            time.sleep(0.02)

    def _connected(self, name):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            with contextlib.suppress(OSError):  # another process of tests has the name
                listener.bind(name)
            if listener.getsockname():
                listener.listen()
                _launch(listener.fileno())
        with contextlib.suppress(ConnectionRefusedError):
            self._socket.connect(name)
            return True
        return False

    def fork(self, words, cwd, env):
        """Returns a process that runs ``python *words``."""
        status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        ignored = [int(number) for number in DEFAULTS if signal.getsignal(number) == signal.SIG_IGN]
        request = {"words": list(map(str, words)), "cwd": str(cwd or os.getcwd()), "env": env, "ignored": ignored}
        with theirs:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [out_end, err_end, theirs.fileno()])
        os.close(out_end)
        os.close(err_end)
        pid = status.recv(64)
        assert pid, "the server of forked commands has ended"
        return Process(words, int(pid), status, open(out, "rb", 0), open(err, "rb", 0))

    def close(self):
        self._socket.close()


def _launch(descriptor):
    """Starts the server as nobody's child: what it forks for other processes of tests is none of those of this one."""
    code = f"import os, sys; os.fork() and os._exit(0); sys.path.insert(0, {str(Path(__file__).parent)!r})"
    code += f"; import forked; forked.serve({descriptor})()"
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-c", code], pass_fds=[descriptor], env=_ENVIRON, check=True, **pipes)


_servers = []


def _server():
    if not _servers:
        _servers.append(Server())
    return _servers[0]


def stop():
    """Lets go of the server, which ends with the last process of tests; what it has forked goes on."""
    while _servers:
        _servers.pop().close()


def serve(descriptor):
    """Forks whenever it is asked to; returns in each child, with the program to run. In the server itself it never returns."""
    for name in HEAVY:
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(name)
    sys.path[:2] = []
    gc.collect()
    gc.freeze()  # what is shared is never looked through again, at the end of a child least of all
    listener = socket.socket(fileno=descriptor)
    clients, working = [], {}
    while True:
        for ready in select.select([listener, *clients, *working], [], [])[0]:
            if ready is listener:
                clients.append(listener.accept()[0])
                continue
            if ready in working:
                pid, status = working.pop(ready)
                with status, contextlib.suppress(OSError):  # the test may have lost interest
                    status.send(str(os.waitpid(pid, 0)[1]).encode())
                os.close(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(ready, 1 << 20, 3)
            if not message:
                clients.remove(ready)
                ready.close()
                if not clients and not select.select([listener], [], [], 0)[0]:
                    os._exit(0)
                continue
            status = socket.socket(fileno=descriptors.pop())
            pid = os.fork()
            if pid == 0:
                for connection in (listener, *clients, status, *(held for _, held in working.values())):
                    connection.close()
                for pidfd in working:
                    os.close(pidfd)
                return _become(json.loads(message), *descriptors)
            for pipe in descriptors:
                os.close(pipe)
            working[os.pidfd_open(pid)] = pid, status
            with contextlib.suppress(OSError):
                status.send(str(pid).encode())


def _become(request, out, err):
    """Makes this fork what a new interpreter would be; returns the program."""
    for number in DEFAULTS:
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for pipe, place in ((out, 1), (err, 2)):
        os.dup2(pipe, place)
        os.close(pipe)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(random.SystemRandom().getrandbits(32))
    first, *rest = request["words"]
    folder = {"-m": request["cwd"], "-c": ""}.get(first, str(Path(first).resolve().parent))
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    inherited = [path for path in _ENVIRON.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [folder, *others, *(path for path in sys.path if path not in inherited)]
    importlib.invalidate_caches()
    if any(Path(path, "hydra_plugins").is_dir() for path in others):  # hydra has looked for plugins before these could be seen
        Singleton, Plugins = sys.modules["hydra.core.singleton"].Singleton, sys.modules["hydra.core.plugins"].Plugins
        Singleton._instances.pop(Plugins, None)
    sys.argv = [first, *rest] if first not in ("-m", "-c") else ["-c" if first == "-c" else rest[0], *rest[1:]]
    if first == "-m":
        return lambda: runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    if first == "-c":
        return lambda: exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    return lambda: runpy.run_path(first, run_name="__main__")
