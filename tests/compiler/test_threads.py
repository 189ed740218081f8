"""Threads: how many compute what, the same numbers whatever runs beside, and children of a process that computes."""

import os
import sys
import threading

import numpy as np
import pytest
from drawing import Draws
from native import python

import fnflare as ff
from fnflare.kernels import mkl

pytest.importorskip("llvmlite")

RNG = Draws(7)
X = RNG.standard_normal((300, 400)).astype(np.float32)
W = RNG.standard_normal((400, 50)).astype(np.float32)


def net(x, w):
    """Rows, columns, products, and a loop over time: all that is shared out among threads."""
    h = np.tanh(x @ w)
    p = np.exp(h - np.max(h, 1, keepdims=True))
    last, states = ff.scan(lambda s, row: (np.tanh(s + row), s), np.zeros(h.shape[1], h.dtype), h)
    return p / np.sum(p, 1, keepdims=True), np.mean(h, 0), np.sum(np.square(x)), last, states


def elementwise(x):
    return np.exp(np.tanh(x)) + 1, np.sum(x, 1), np.where(x > 0, x, np.expm1(x))


def as_bytes(out):
    return [np.asarray(a).tobytes() for a in ff.tree.leaves(out)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_same_bits_for_a_number_of_threads(count):
    f = ff.jit(ff.value_and_grad(lambda w, x: sum([np.sum(np.square(a)) for a in net(x, w)])))
    g = ff.jit(net)
    with ff.config.override(num_threads=count):
        first = as_bytes(f(W, X)), as_bytes(g(X, W))
        for _ in range(10):
            assert (as_bytes(f(W, X)), as_bytes(g(X, W))) == first


def test_elementwise_the_same_for_any_number_of_threads():
    f = ff.jit(elementwise)
    answers = []
    for count in (1, 2, 3):
        with ff.config.override(num_threads=count):
            answers.append(as_bytes(f(X)))
    assert answers[0] == answers[1] == answers[2]


COUNT = """
import os, sys, threading
import numpy as np
import fnflare as ff

f = ff.jit(lambda x: (np.exp(np.tanh(x)), x @ x.T))
x = np.ones((1000, 1000))

def there():
    return len(os.listdir("/proc/self/task"))

def threads_more(count):
    ff.config.set_num_threads(count)
    before = there()
    f(x)
    return there() - before

first = threads_more(1), threads_more(2), threads_more(2), threads_more(1)

def elsewhere():  # a thread that OpenMP has not seen: what was set counts for it too
    global second
    second = threads_more(1)

ff.config.set_num_threads(1)
t = threading.Thread(target=elsewhere)
t.start()
t.join()
print(first, second)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted with Linux")
@pytest.mark.skipif(mkl._openmp() is None, reason="OpenMP's runtime is not installed")
def test_the_number_of_threads_reaches_compiled_code(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert python(COUNT) == "(0, 1, 0, 0) 0"


def test_python_threads_call_at_once():
    f, g, h = ff.jit(net), ff.jit(elementwise), ff.jit(lambda x: x[:3, :3] * 2)
    with ff.config.override(num_threads=2):
        expected = as_bytes(f(X, W)), as_bytes(g(X)), as_bytes(h(X))
        wrong = []
        barrier = threading.Barrier(4)

        def work(number):
            barrier.wait()
            for _ in range(10):
                if number != 2 and as_bytes(f(X, W)) != expected[0]:
                    wrong.append("net")
                if number != 3 and as_bytes(g(X)) != expected[1]:
                    wrong.append("elementwise")
                if as_bytes(h(X)) != expected[2]:
                    wrong.append("tiny")

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert wrong == []


def test_python_threads_compile_at_once():
    wrong = []

    def work(number):
        for k in range(3):
            f = ff.jit(lambda x, k=k: np.exp(x) * k + number // 2)
            if not np.allclose(f(X), np.exp(X) * k + number // 2, rtol=1e-5):
                wrong.append((number, k))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


FORK = """
import os, signal, threading, time, warnings
import numpy as np
import fnflare as ff

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while there are threads
ff.config.set_num_threads(2)
f = ff.jit(lambda x, w: (np.sum(np.exp(np.tanh(x @ w)), 0), np.exp(x)))
x, w = np.linspace(-3, 3, 40_000).reshape(40, 1000), np.linspace(-1, 1, 64_000).reshape(1000, 64)

def good():
    out = f(x, w)
    new = ff.jit(lambda x: np.exp(x) - 1)(x)
    return all(map(np.array_equal, out, expected)) and np.allclose(new, np.exp(x) - 1)

expected = f(x, w)
stop = threading.Event()
def work():
    while not stop.is_set():
        f(x, w)

def forked(depth):
    child = os.fork()
    if not child:
        signal.alarm(60)  # ends a child that hangs
        os._exit(0 if good() and (not depth or forked(depth - 1)) and good() else 1)
    return os.waitpid(child, 0)[1] == 0

print(all([forked(2) for _ in range(3)]), good())
threads = [threading.Thread(target=work) for _ in range(2)]
for t in threads:
    t.start()
print(all([forked(0) for _ in range(10)]), good())
stop.set()
for t in threads:
    t.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_children_compute_with_threads_of_their_own():
    assert python(FORK).split() == ["True"] * 4
