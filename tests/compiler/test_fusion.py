"""What lowering makes of programs: few loop nests, and no number that is read before it is written."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from test_benchmarks import small  # noqa: F401 -- a fixture

import fnflare as ff
from benchmarks import workloads
from fnflare import nn, optim
from fnflare.compiler.arena import pool
from fnflare.compiler.segments import segments
from fnflare.nest import (
    Branch,
    Contract,
    Element,
    Loop,
    Position,
    Repeat,
    Run,
    Sections,
    Store,
    operands,
    walk,
)

X, W, B = np.ones((8, 32), np.float32), np.ones((32, 16), np.float32), np.ones(16, np.float32)
LABELS = np.arange(8)
NORM = nn.LayerNorm()
_, NORM_PARAMS = NORM.init(ff.random.key(0), (-1, 32))
ADAM = optim.adam(1e-3)


def module_of(f, *args):
    stage = ff.jit(f).lower(*args)
    assert stage.is_native
    return stage.segments[0].lowered.module


def statements(body):
    for s in body:
        yield s
        for inner in inside(s):
            yield from statements(inner)


def inside(s):
    return [s.body] if isinstance(s, (Repeat, Loop)) else s.bodies if isinstance(s, (Branch, Sections)) else []


# -- how many loop nests ------------------------------------------------------------------------------------------


def cross_entropy(x, labels):
    return nn.softmax_cross_entropy_with_integer_labels(x, labels)


NESTS = {
    "elementwise": (1, lambda x: np.tanh(x * 2 + 1) * np.exp(-x), (X,)),
    "views": (1, lambda x, y: (x.T[::-1] + y.reshape(32, 8)).reshape(4, 64) * 2, (X, X)),
    "combinations of rows": (1, lambda x: (np.sum(x, -1), np.max(x, -1), np.mean(x, -1)), (X,)),
    "softmax": (1, ff.ops.softmax, (X,)),
    "log-softmax": (1, ff.ops.log_softmax, (X,)),
    "the gradient of softmax": (1, ff.grad(lambda x: np.sum(np.sin(ff.ops.softmax(x)))), (X,)),
    "layer norm": (1, NORM.apply, (NORM_PARAMS, X)),
    # The logarithms of a row's probabilities, of which one is read by an index that is itself read.
    "cross-entropy": (2, cross_entropy, (X, LABELS)),
    "the mean of cross-entropies": (2, lambda x, labels: np.mean(cross_entropy(x, labels)), (X, LABELS)),
    "dense, relu": (1, lambda x, w, b: np.maximum(x @ w + b, 0), (X, W, B)),
}


@pytest.mark.parametrize("name", NESTS)
def test_chains_are_few_loop_nests(name):
    most, f, args = NESTS[name]
    runs = [s for s in statements(module_of(f, *args).body) if isinstance(s, Run)]
    assert 1 <= len(runs) <= most


def test_what_rows_share_takes_no_memory():
    for name in ("elementwise", "views", "softmax", "log-softmax", "layer norm"):
        _, f, args = NESTS[name]
        assert not [b for b in module_of(f, *args).buffers if b.role == "scratch"], name


def test_equal_nests_are_one_kernel():
    params = {k: np.ones((7, 9), np.float32) for k in "abcdef"}
    state = ADAM.init(params)

    def step(grads, state, params):
        updates, state = ADAM.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    module = module_of(step, params, state, params)
    runs = [s for s in statements(module.body) if isinstance(s, Run)]
    assert len(module.kernels) <= 3 < len(params) <= len(runs)


def test_sums_of_products_read_transposed_and_sliced_operands_where_they_lie():
    def f(x, y):
        return x.T @ y[1:, ::2], np.einsum("ab,cb->ca", x[::2], y)

    module = module_of(f, np.ones((6, 4)), np.ones((7, 4)))
    assert [type(s) for s in statements(module.body)] == [Contract, Contract]


# -- nothing is read before it is written -----------------------------------------------------------------------


def reads_first(body):
    """The buffers that a kernel's body reads an element of before a statement above has written to it."""
    written, found = set(), set()

    def look(x):
        for s in walk([x]):
            if isinstance(s, Element) and s.buffer not in written:
                found.add(s.buffer)

    for s in statements(body):
        for x in [s.value] if hasattr(s, "value") else []:
            look(x)
        if isinstance(s, Store):
            for x in operands(Position("i64", s.index)):
                look(x)
            written.add(s.buffer)
    return found


def stores(body):
    return {s.buffer for s in statements(body) if isinstance(s, Store)}


def unwritten(body, written, out):
    """Add to `out` what statements read and nothing before them has written; returns what is written after them."""
    written = set(written)

    def read(part):
        if part.buffer not in written and part.buffer.role not in ("input", "constant"):
            out.add(part.buffer)

    for s in body:
        if isinstance(s, Run):
            early, late = reads_first(s.kernel.body), stores(s.kernel.body)
            parts = dict(zip(s.kernel.parameters, s.parts, strict=True))
            for parameter in early:
                if parameter in parts:
                    read(parts[parameter])
            written |= {parts[p].buffer for p in late if p in parts}
        elif isinstance(s, Contract):
            for part in [s.a, s.b, *([s.out] if s.accumulate else [])]:
                read(part)
            written.add(s.out.buffer)
        elif isinstance(s, Repeat):
            if s.condition is not None:
                read(s.condition)
            written |= unwritten(s.body, written, out)
        elif isinstance(s, Branch):
            read(s.which)
            written |= set.intersection(*[unwritten(b, written, out) for b in s.bodies])
        else:
            assert isinstance(s, Sections)
            written |= set.union(*[unwritten(b, written, out) for b in s.bodies])
    return written


def check_order(lowered):
    out = set()
    written = unwritten(lowered.module.body, set(), out)
    assert not out
    assert {b for b in lowered.module.buffers if b.role == "output"} <= written


def test_the_check_finds_a_statement_that_is_missing():
    (part,) = ff.jit(ff.grad(lambda x, w: np.sum(np.tanh(x @ w)), argnums=(0, 1))).lower(X, W).segments
    check_order(part.lowered)
    module = part.lowered.module
    for k in range(len(module.body)):
        rest = replace(module, body=(*module.body[:k], *module.body[k + 1 :]))
        with pytest.raises(AssertionError):
            check_order(replace(part.lowered, module=rest))


@pytest.fixture
def programs(monkeypatch):
    """The programs of all functions that are jitted."""
    module = sys.modules["fnflare.transforms.jit"]  # the attribute of this name is the function
    found, simplify = [], module.simplify

    def recorded(program, *rest, **options):
        found.append(simplify(program, *rest, **options))
        return found[-1]

    monkeypatch.setattr(module, "simplify", recorded)
    return found


WORKLOADS = ["bilstm", "mlp", "lenet", "gpt", "textcnn", "tiny", "pergrad"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_read_what_was_written(name, programs):
    step = getattr(workloads, name)("jit")
    step()
    parts = [part for program in programs for part in segments(program)]
    assert parts
    for part in parts:
        check_order(part.lowered)


def in_memory_of(byte, name):
    """What a workload gives after some steps where scratch memory holds a byte everywhere before each."""
    step = getattr(workloads, name)("jit")
    for _ in range(3):
        out = step()
        for block in pool.free:
            block[...] = byte
    return ff.tree.leaves(out)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_do_not_depend_on_what_memory_held(name):
    """All ones are NaNs and indices out of bounds."""
    for a, b in zip(in_memory_of(0xFF, name), in_memory_of(0, name), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.all(np.isfinite(a))
