"""The user's process and model are left as they were found."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pruneproof.errors import TaskTimeout


@contextlib.contextmanager
def untouched_globals(threads: int, seed: int) -> Iterator[None]:
    """Runs the block under ``threads`` torch threads and a seeded global random state.

    PruneProof itself draws from explicit generators; a user's model or loader may not. Their draws are
    seeded here, and the states of ``random``, numpy and torch, the number of threads, the default
    dtype, grad mode, determinism flags and the current folder are as before afterwards, whatever happened.
    """
    python, numpy, here = random.getstate(), np.random.get_state(), os.getcwd()
    flags = _flags()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            torch.set_num_threads(threads)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            os.chdir(here)
            _restore(flags)


def _flags() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
    }


def _restore(flags: dict[str, Any]) -> None:
    torch.set_num_threads(flags["threads"])
    torch.set_default_dtype(flags["dtype"])
    torch.set_grad_enabled(flags["grad"])
    torch.use_deterministic_algorithms(flags["deterministic"], warn_only=flags["warn_only"])
    torch.backends.cudnn.benchmark = flags["benchmark"]
    torch.backends.cudnn.deterministic = flags["cudnn_deterministic"]


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Every submodule in eval mode inside, and in its own earlier mode afterwards; frozen TorchScript has none."""
    modes = {module: module.training for module in model.modules() if hasattr(module, "training")}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


class Interrupt(BaseException):
    """Not an ``Exception``, so that a user's ``except Exception`` does not swallow it."""


@contextlib.contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Stops the block after ``seconds``.

    A single call that never returns to Python (a native kernel) is stopped once it does; on a main
    thread with Unix signals a blocking system call is stopped at once.

    Raises:
        TaskTimeout: the block took longer.
    """
    fired = threading.Event()
    start = _signal_alarm if _has_alarm(seconds) else _thread_alarm
    try:
        with start(seconds, fired):
            yield
    except Interrupt:
        if not fired.is_set():
            raise  # the deadline of an outer block
        raise TaskTimeout(
            f"{what} took longer than {seconds:g} s", "raise timeout_s in [audit], or find what hangs"
        ) from None
    if fired.is_set():
        raise TaskTimeout(f"{what} took longer than {seconds:g} s", "raise timeout_s in [audit], or find what hangs")


def _has_alarm(seconds: float) -> bool:
    """Whether the alarm is free, or set by somebody (pytest-timeout, an outer deadline) for later than ours."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return False
    others = signal.getitimer(signal.ITIMER_REAL)[0]
    return others == 0 or others > seconds


@contextlib.contextmanager
def _signal_alarm(seconds: float, fired: threading.Event) -> Iterator[None]:
    def stop(signum: int, frame: object) -> None:
        fired.set()
        raise Interrupt

    start = time.monotonic()
    previous = signal.signal(signal.SIGALRM, stop)
    others, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, previous)
            if others:
                signal.setitimer(signal.ITIMER_REAL, max(others - (time.monotonic() - start), 1e-6), interval)


@contextlib.contextmanager
def _thread_alarm(seconds: float, fired: threading.Event) -> Iterator[None]:
    target = threading.get_ident()

    def stop() -> None:
        fired.set()
        _interrupt(target, Interrupt)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if fired.is_set():
            _absorb()


def _absorb() -> None:
    """Lets an interrupt that was sent just now arrive here, so that it does not hit what comes after the block.

    It cannot be called back: CPython 3.11 then looks for it for ever, and hangs as soon as something traces the thread.
    """
    with contextlib.suppress(Interrupt):
        for _ in range(1000):
            time.sleep(0)


def _interrupt(thread: int, kind: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


@contextlib.contextmanager
def importing_from(folder: str) -> Iterator[None]:
    """``folder`` is first on ``sys.path`` inside."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
