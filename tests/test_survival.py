"""Robustness: forks, threads, interrupts, failed allocations, abrupt exits, long runs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import leaky_ext


def train_once(size=100_000):
    """Returns the gradient of one slope for a tensor that is large enough for several threads."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator)
    alpha = torch.full((1,), 0.25, requires_grad=True)
    leaky_ext.learnable_leaky_relu(x, alpha).sum().backward()
    return alpha.grad.item()


class Activated(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor(train_once())


def run_python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, **options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_workers_give_what_their_parent_gives():
    """DataLoader workers are forked from a process whose threads have already run a kernel.

    Runs in a fresh process: torch forbids backward in a fork of a process that has had autograd threads.
    """
    result = run_python("import test_survival; test_survival.compare_forked_workers()", cwd=Path(__file__).parent)
    assert result.returncode == 0, result.stderr


def compare_forked_workers():
    expected = train_once()
    loader = torch.utils.data.DataLoader(Activated(), num_workers=2, multiprocessing_context="fork", timeout=60)
    assert [value.item() for value in loader] == [expected] * 8


def test_spawned_interpreters_import_at_once():
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(train_once, [50_000] * 3) == [train_once(50_000)] * 3


def test_eight_threads_give_what_one_gives():
    expected = train_once()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: train_once(), range(80))) == {expected}


@pytest.fixture
def eager_switches():
    """Lets waiting threads get the GIL from a thread that runs Python within 0.1 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def ticks_in_the_middle(call):
    """Returns how often another Python thread ran in the middle half of the call.

    If the call holds the GIL, no other thread runs in this time.
    """
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(1e-4)

    ticker = threading.Thread(target=tick)
    ticker.start()
    start = time.perf_counter()
    call()
    took = time.perf_counter() - start
    stop.set()
    ticker.join()
    return sum(start + took / 4 < moment < start + took * 3 / 4 for moment in ticks)


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize(
    "call",
    [
        lambda x: leaky_ext.learnable_leaky_relu(x, 0.1),
        lambda x: leaky_ext.learnable_leaky_relu_(x, torch.full((1,), 0.1)),
        lambda x: leaky_ext.learnable_leaky_relu(x, torch.full((1,), 0.1, requires_grad=True)),
        lambda x: leaky_ext.straight_through_relu(x),
        lambda x: leaky_ext.straight_through_relu_(x),
    ],
    ids=["fixed", "in place", "learned", "straight-through", "straight-through in place"],
)
def test_the_gil_is_released_during_a_call(call):
    x = torch.randn(30_000_000)  # tens of milliseconds
    assert any(ticks_in_the_middle(lambda: call(x)) for _ in range(5))


def test_abrupt_exit():
    code = "import os, torch, leaky_ext; leaky_ext.learnable_leaky_relu(torch.randn(100000), 0.1); os._exit(7)"
    assert run_python(code).returncode == 7


def test_interrupt_during_calls():
    code = """
import signal, torch, leaky_ext
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
x = torch.randn(5_000_000)
print("ready", flush=True)
try:
    while True:
        leaky_ext.learnable_leaky_relu(x, 0.1)
except KeyboardInterrupt:
    alpha = torch.full((1,), 0.25, requires_grad=True)
    leaky_ext.learnable_leaky_relu(torch.tensor([-2.0]), alpha).sum().backward()
    print("interrupted", alpha.grad.item(), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted -2.0\n"
    assert process.returncode == 0


def test_out_of_memory_is_torchs_error_and_leaks_nothing():
    x = torch.zeros(1).expand(2**50)  # an output of 4 PiB
    x.requires_grad_()
    alpha = torch.full((1,), 0.25, requires_grad=True)
    for call in (leaky_ext.learnable_leaky_relu, leaky_ext.straight_through_relu):
        for slope in (alpha, 0.1):
            with pytest.raises(RuntimeError, match=r"can't allocate memory|not enough memory"):
                call(x, slope)
    assert train_once() == train_once()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_in_10_000_steps():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    modules = torch.nn.Sequential(
        torch.nn.Linear(64, 64),
        leaky_ext.LearnableLeakyReLU(num_parameters=64),
        torch.nn.Linear(64, 64),
        leaky_ext.StraightThroughReLU(),
        leaky_ext.LearnableLeakyReLU(save="output", init=0.2),
    )
    optimizer = torch.optim.SGD(modules.parameters(), lr=1e-3)
    x = torch.randn(256, 64)

    def train(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            modules(x).square().mean().backward()
            optimizer.step()

    train(1000)
    before = resident()
    train(10_000)
    assert resident() - before < 2 * 2**20
