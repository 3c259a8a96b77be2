"""Loading a model once in a child process, so that a hostile or broken file harms nobody else.

`python -m edgeflow_agent.inference.trial_load` is the child: it caps itself, loads, runs once with zeros
and prints a verdict. `trial_load` is the parent's side: it starts the child, waits, and kills.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgeflow_agent import errors, typed
from edgeflow_agent.wire.documents import TensorSpec

logger = logging.getLogger(__name__)

_MIB = 1 << 20
_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
_POLL_SOON_S = 0.002
_MAX_VERDICT = 256 * 1024


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the child found."""

    ok: bool
    reason: str = ""
    message: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    seconds: float = 0.0
    peak_mb: float = 0.0


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    threads: int
    providers: tuple[str, ...]
    declared: tuple[TensorSpec, ...]
    timeout_s: float
    max_memory_mb: int
    parent: int
    compiled: str
    digest: str


def trial_load(
    path: Path,
    *,
    declared: Sequence[TensorSpec] = (),
    threads: int = 1,
    providers: Sequence[str] = (),
    timeout_s: float = 120.0,
    max_memory_mb: int = 4096,
    compiled: Path | None = None,
    digest: str = "",
    should_stop: Callable[[], bool] = lambda: False,
    meanwhile: Callable[[], object] = lambda: None,
) -> Verdict | None:
    """Load `path` in a child and return its verdict, or None when `should_stop` said so. `meanwhile` is
    called once while the child is at work.

    `compiled` is a folder for the optimised form of the model, which the child makes, so that this process
    never needs the memory for that.

    Raise ModelError with reason `load_timeout`, `load_memory`, `load_crash`, `interface`, `steps` or what the
    loader said, when the model is not fit to serve.
    """
    order = _Order(
        path=str(path),
        threads=threads,
        providers=tuple(providers),
        declared=tuple(declared),
        timeout_s=timeout_s,
        max_memory_mb=max_memory_mb,
        parent=os.getpid(),
        compiled="" if compiled is None else str(compiled),
        digest=digest,
    )
    # Another thread is not there after a fork, and what it has locked stays locked for ever: only a process
    # without any forks, which saves a second start of Python and ONNX Runtime.
    child = _Forked(order) if threading.active_count() == 1 else _Spawned(order)
    try:
        soon = time.monotonic() + 1.0
        deadline = time.monotonic() + timeout_s
        meanwhile()
        while child.poll() is None:
            if should_stop():
                return None
            if time.monotonic() > deadline:
                raise errors.ModelError(
                    f"the model did not load and run once within {timeout_s:g} s (runtime.load_timeout_s)",
                    reason="load_timeout",
                )
            # Most are over in a tenth of a second, and somebody waits.
            time.sleep(_POLL_S if time.monotonic() > soon else _POLL_SOON_S)
        return _judge(child.output(), child.poll() or 0, max_memory_mb)
    finally:
        child.close()


class _Spawned:
    """The child as a new interpreter."""

    def __init__(self, order: _Order) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeflow_agent.inference.trial_load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
        )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(order))
            self._process.stdin.close()
        except BrokenPipeError:
            logger.debug("the trial load ended before it read its order")

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def output(self) -> bytes:
        """What it said. A verdict is smaller than the pipe's buffer: the child never waits for a reader."""
        assert self._process.stdout is not None
        return self._process.stdout.read(_MAX_VERDICT)

    def close(self) -> None:
        """End it if it runs, and let go of everything."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class _Forked:
    """The child as a copy of this process."""

    def __init__(self, order: _Order) -> None:
        # Loaded here, it is there in the child and after it.
        from edgeflow_agent.inference import engine  # noqa: F401

        self._code: int | None = None
        self._read, write = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(write)
            return
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _cap(order)
            os.write(write, msgspec.json.encode(_verdict(order)))
        finally:
            os._exit(0)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def output(self) -> bytes:
        """What it said, once it has ended."""
        return os.read(self._read, _MAX_VERDICT)

    def close(self) -> None:
        """End it if it runs, and let go of everything."""
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._read)


def _judge(output: bytes, code: int, max_memory_mb: int) -> Verdict:
    try:
        verdict = typed.read(Verdict, output)
    except msgspec.MsgspecError:
        if code == -signal.SIGXCPU:
            reason, message = "load_timeout", "the model used up its processor time while it loaded"
        elif code in (-signal.SIGKILL, -signal.SIGABRT):
            reason, message = "load_memory", f"loading the model was stopped at {max_memory_mb} MiB"
        else:
            reason, message = "load_crash", f"loading the model ended the process (exit code {code})"
        raise errors.ModelError(f"{message}; it is not served", reason=reason) from None
    if not verdict.ok:
        raise errors.ModelError(verdict.message, reason=verdict.reason)
    return verdict


def _cap(order: _Order) -> None:
    """Limits of this child: it dies with its parent, leaves no core file, and gets so much time."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != order.parent:
        os._exit(1)
    os.nice(5)  # the model that serves goes first
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cpu = max(int(order.timeout_s * (os.cpu_count() or 1)) + 2, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))


def _cap_memory(max_memory_mb: int) -> None:
    # Counted from what the interpreter and ONNX Runtime have mapped already: address space that is
    # reserved for libraries and thread arenas is not the model's.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + max_memory_mb * _MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _verdict(order: _Order) -> Verdict:
    from edgeflow_agent import steps
    from edgeflow_agent.inference import engine

    _cap_memory(order.max_memory_mb)
    begin = time.monotonic()
    try:
        model = engine.Engine(
            Path(order.path),
            threads=order.threads,
            providers=order.providers,
            compiled=Path(order.compiled) if order.compiled else None,
            digest=order.digest,
        )
        engine.check_interface(model, order.declared)
        steps.of_graph(Path(order.path), model.inputs, model.outputs)
        model.warm_up()
    except errors.ModelError as error:
        return Verdict(ok=False, reason=error.reason, message=str(error))
    except MemoryError:
        return Verdict(
            ok=False,
            reason="load_memory",
            message=f"the model needs more than {order.max_memory_mb} MiB to load (runtime.max_memory_mb)",
        )
    return Verdict(
        ok=True,
        inputs=model.inputs,
        seconds=time.monotonic() - begin,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _child() -> None:
    order = typed.read(_Order, sys.stdin.buffer.read())
    _cap(order)
    sys.stdout.buffer.write(msgspec.json.encode(_verdict(order)))
    sys.stdout.buffer.flush()
    # Skip destructors: under a memory cap they may abort after the verdict is out.
    os._exit(0)


if __name__ == "__main__":
    _child()
