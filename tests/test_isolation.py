"""The process and the model are left as they were, and a block that takes too long is stopped."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import networks
import numpy as np
import pytest
import torch

from pruneproof import isolation
from pruneproof.errors import TaskTimeout
from pruneproof.isolation import deadline, evaluating, importing_from, untouched_globals


def state() -> list[Any]:
    python, numpy = random.getstate(), np.random.get_state()
    return [
        python,
        [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy],
        torch.random.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    ]


def disturb() -> None:
    random.random()
    np.random.rand()
    torch.rand(1)
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True


def run_through() -> None:
    with untouched_globals(1, 5):
        disturb()


def raise_inside() -> None:
    with contextlib.suppress(ZeroDivisionError), untouched_globals(1, 5):
        disturb()
        _ = 1 / 0


def time_out_inside() -> None:
    with contextlib.suppress(TaskTimeout), untouched_globals(1, 5), deadline(0.05, "it"):
        disturb()
        time.sleep(5)


def interrupt_inside() -> None:
    with contextlib.suppress(KeyboardInterrupt), untouched_globals(1, 5):
        disturb()
        raise KeyboardInterrupt


@pytest.mark.parametrize("block", [run_through, raise_inside, time_out_inside, interrupt_inside])
def test_global_state_is_as_before_whatever_happened(block: Callable[[], None]) -> None:
    random.seed(1)
    before = state()
    block()
    assert state() == before


def test_draws_inside_depend_on_the_seed_alone() -> None:
    def drawn(seed: int) -> tuple[float, float, float]:
        with untouched_globals(1, seed):
            return random.random(), float(np.random.rand()), float(torch.rand(1))

    first = drawn(5)
    torch.rand(3)
    random.random()
    assert drawn(5) == first
    assert not set(drawn(6)) & set(first)
    assert drawn(2**63 - 1) == drawn(2**63 - 1)


def test_the_block_computes_with_the_threads_asked_for() -> None:
    with untouched_globals(2, 0):
        assert torch.get_num_threads() == 2
        with untouched_globals(1, 0):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2


def test_modes_come_back_one_by_one_when_the_block_raises() -> None:
    model = networks.cnn().train()
    model.get_submodule("1").eval()
    before = [module.training for module in model.modules()]
    with contextlib.suppress(ZeroDivisionError), evaluating(model):
        assert not any(module.training for module in model.modules())
        _ = 1 / 0
    assert [module.training for module in model.modules()] == before


def test_torchscript_is_evaluated_and_comes_back_and_frozen_torchscript_has_no_modes() -> None:
    with warnings.catch_warnings(action="ignore"):
        model = torch.jit.script(networks.mlp().train())
        frozen = torch.jit.freeze(torch.jit.script(networks.mlp().eval()))
    with evaluating(model):
        assert not model.training
    assert all(module.training for module in model.modules())
    with evaluating(frozen):
        assert frozen(torch.zeros(1, 6)).shape == (1, 3)


def sleep() -> None:
    for _ in range(100):
        time.sleep(0.05)


def spin() -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        pass


def swallow_exceptions() -> None:
    for _ in range(100):
        with contextlib.suppress(Exception):
            time.sleep(0.05)


def swallow_everything() -> None:
    with contextlib.suppress(BaseException):
        sleep()


def stopped(block: Callable[[], None], seconds: float = 0.1) -> tuple[str, float]:
    start = time.monotonic()
    with pytest.raises(TaskTimeout) as caught, deadline(seconds, "predicting"):
        block()
    return caught.value.cause, time.monotonic() - start


BLOCKS = [sleep, spin, swallow_exceptions, swallow_everything]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_that_takes_too_long_is_stopped(block: Callable[[], None]) -> None:
    cause, took = stopped(block)
    assert cause == "predicting took longer than 0.1 s"
    assert 0.1 <= took < 2


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_in_another_thread_is_stopped(block: Callable[[], None]) -> None:
    found: list[tuple[str, float]] = []
    thread = threading.Thread(target=lambda: found.append(stopped(block)))
    thread.start()
    thread.join(10)
    assert found
    assert found[0][0] == "predicting took longer than 0.1 s"
    assert found[0][1] < 2


def test_one_blocking_call_on_the_main_thread_is_stopped_at_once() -> None:
    assert stopped(lambda: time.sleep(5))[1] < 2


def in_a_thread(work: Callable[[], None]) -> None:
    problems: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join(20)
    assert problems == []


@pytest.mark.parametrize("run", [lambda work: work(), in_a_thread])
def test_a_block_in_time_is_left_alone_afterwards_too(run: Callable[[Callable[[], None]], None]) -> None:
    def work() -> None:
        with deadline(0.05, "it"):
            pass
        time.sleep(0.1)

    previous = signal.getsignal(signal.SIGALRM)
    timer = signal.getitimer(signal.ITIMER_REAL)[0]
    run(work)
    assert signal.getsignal(signal.SIGALRM) is previous
    assert (signal.getitimer(signal.ITIMER_REAL)[0] == 0) == (timer == 0)


@pytest.mark.parametrize("run", [lambda work: work(), in_a_thread])
def test_an_alarm_at_the_very_end_of_a_block_hits_nothing_after_it(run: Callable[[Callable[[], None]], None]) -> None:
    def work() -> None:
        for i in range(100):
            with contextlib.suppress(TaskTimeout), deadline(0.003, "it"):
                end = time.perf_counter() + 0.003 + (i % 10 - 5) * 1e-4
                while time.perf_counter() < end:
                    pass
            for _ in range(200):
                pass

    run(work)


def test_an_alarm_that_is_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    send = isolation._interrupt

    def late(thread: int, kind: type[BaseException] | None) -> None:
        if kind is not None:
            time.sleep(0.1)
        send(thread, kind)

    def work() -> None:
        with contextlib.suppress(TaskTimeout), deadline(0.03, "it"):
            time.sleep(0.06)
        for _ in range(10):
            time.sleep(0.02)

    monkeypatch.setattr(isolation, "_interrupt", late)
    in_a_thread(work)


def test_an_error_of_the_block_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), deadline(5, "it"):
        _ = 1 / 0


@pytest.mark.parametrize("run", [lambda work: work(), in_a_thread])
@pytest.mark.parametrize(("outer", "inner", "late"), [(0.1, 5, "outer"), (5, 0.1, "inner")])
def test_of_two_deadlines_the_one_that_passed_is_named(
    run: Callable[[Callable[[], None]], None], outer: float, inner: float, late: str
) -> None:
    def work() -> None:
        with pytest.raises(TaskTimeout, match=f"{late} took longer than 0.1 s"), deadline(outer, "outer"):  # noqa: SIM117
            with deadline(inner, "inner"):
                sleep()

    run(work)


def test_an_outer_deadline_goes_on_after_an_inner_one() -> None:
    def work() -> None:
        with deadline(5, "inner"):
            pass
        sleep()

    assert stopped(work)[1] < 2


def test_a_folder_is_importable_inside_only(tmp_path: Any) -> None:
    before = list(sys.path)
    with contextlib.suppress(ZeroDivisionError), importing_from(str(tmp_path)):
        assert sys.path[0] == str(tmp_path)
        _ = 1 / 0
    assert sys.path == before


TRACED = """
import sys, threading
from pruneproof.isolation import deadline

def inside():
    with deadline(60, "outer"):
        with deadline(60, "inner"):  # the alarm is taken: a thread keeps the time
            pass
        try:
            with deadline(0.05, "late"), deadline(0.05, "late too"):
                while True:
                    pass
        except Exception as error:
            print(type(error).__name__)
inside()
sys.settrace(lambda frame, event, arg: None)
def called(): return 1
print(sum(called() for _ in range(1000)))
"""


def test_after_a_deadline_that_a_thread_kept_a_tracer_does_not_hang() -> None:
    """As coverage, debuggers and Hypothesis trace."""
    found = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.split() == ["TaskTimeout", "1000"]
