"""Native code and the interpreter agree: on every primitive and dtype, on arrays however they lie in memory and however
long they are, on random programs under every transform, and on what NumPy leaves to special values."""

import os
import re
from dataclasses import replace

import numpy as np
import pytest
from drawing import Draws
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import described
from test_ops import BINARY, CASES, SAMPLES, UNARY, call, in_float32

import fnflare as ff
from fnflare import tree
from fnflare.compiler.block import rule_of
from fnflare.compiler.rules.elementwise import has_rule
from fnflare.core import primitives
from fnflare.testing import programs

pytest.importorskip("llvmlite")

LINEAR_ALGEBRA = [
    "cholesky", "cofactors", "cofactors_change", "det", "eig", "eigh", "eigvals", "eigvalsh", "inv", "pinv", "qr",
    "qr_complete", "regular", "slogdet", "solve", "svd", "svd_full", "svdvals",
]  # fmt: skip
#: Primitives that NumPy runs, and why.
INTERPRETED = {
    "argpartition": "sorting is a library's work",
    "argsort": "sorting is a library's work",
    "bessel_i": "series of many terms, which no model runs",
    "bitwise_count": "of integers alone, which no model runs",
    "checkpoint": "a program has what it stands for in its place",
    "custom_jvp": "a program has what it stands for in its place",
    "custom_vjp": "a program has what it stands for in its place",
    "frexp_exponent": "a matter of bits, which no model runs",
    "gcd": "Euclid's loop, of integers alone, which no model runs",
    "lcm": "Euclid's loop, of integers alone, which no model runs",
    "ldexp": "a matter of bits, which no model runs",
    "nextafter": "a matter of bits, which no model runs",
    "normal_quantile": "rational functions in five pieces: the same bits as NumPy's are promised",
    "pure_callback": "a function of the user's own, which may do anything",
    "random_variate": "rejection by NumPy's own loops: the same bits are promised",
    "roots": "eigenvalues, whose number depends on which coefficients are zero",
    "searchsorted": "a library's work",
    "sort": "sorting is a library's work",
    "spacing": "a matter of bits, which no model runs",
    **dict.fromkeys(("real", "imag", "conjugate"), "of complex numbers, which have no machine type"),
    **dict.fromkeys(("fft", "irfft", "rfft"), "a library's work"),
    **dict.fromkeys(LINEAR_ALGEBRA, "LAPACK's work"),
}
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
FLOATS = [np.float32, np.float64]
DTYPES = [np.bool_, *INTEGERS, *FLOATS]
#: Twice the error bounds of the elementary functions, in which both executors take part.
ULPS = {np.dtype(np.float32): 16, np.dtype(np.float64): 16}

EXAMPLES = {"ci": 100, "thorough": 100_000}.get(os.environ.get("HYPOTHESIS_PROFILE", "dev"), 30)
many = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
RNG = Draws(11)


def close(got, expected, ulps=None, atol=0.0, sums=0):
    """Two trees agree in structure, shapes and dtypes, integers in value, floating numbers to some ULPs."""
    assert tree.structure(got) == tree.structure(expected)
    assert described(got) == described(expected)
    for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        # An array without axes comes of a reshape in NumPy, or is an argument; native code makes scalars.
        assert isinstance(b, np.ndarray) or type(a) is type(b)
        b = np.asarray(b)
        if b.dtype.kind not in "fc":
            np.testing.assert_array_equal(a, b)
            continue
        rounding = (ULPS.get(b.dtype, 16) if ulps is None else ulps) * np.finfo(b.dtype).eps
        largest = np.max(np.abs(b), initial=0, where=np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=rounding, atol=max(atol, sums * np.finfo(b.dtype).eps * largest))


def both(f, *args, ulps=None, atol=0.0, sums=0):
    """Hold a jitted function to itself without native code; its answer.

    Args:
        f, args: the function and its arguments.
        ulps, atol: how far apart floating numbers may be.
        sums: by how many ULPs of the largest element too; where terms cancel, the order of a sum tells.
    """
    with np.errstate(all="ignore"):
        got = ff.jit(f)(*args)
        with ff.config.override(use_native=False):
            expected = ff.jit(f)(*args)
    close(got, expected, ulps, atol, sums)
    return got


def is_native(f, *args):
    """Whether no part of a jitted function is left to NumPy."""
    return "NumPy:" not in str(ff.jit(f).lower(*args))


# -- the registry ----------------------------------------------------------------------------------------------


def test_every_primitive_is_lowered_or_has_a_reason_not_to_be():
    ours = {n: p for n, p in primitives().items() if not n.startswith("scipy.")}  # SciPy's are a library's work
    without = {n for n, p in ours.items() if rule_of(n) is None and not (p.elementwise and has_rule(n))}
    assert without == set(INTERPRETED)


def variants(name):
    samples = [s for s in SAMPLES[name] if all(0 not in np.shape(a) for a in s.args)]
    return [*samples, *map(in_float32, samples)]


#: The samples that are run by NumPy although their primitive is lowered: one that has no rule for such parameters.
PARTLY = {"round": "decimals", "einsum": "three operands, or a letter twice", "getitem": "masks", "index_set": "masks"}


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in INTERPRETED])
def test_samples_of_primitives(name):
    samples = variants(name)
    args = [s.args for s in samples]

    def all_of_them(args):
        return [call(name, s.params)(*a) for s, a in zip(samples, args, strict=True)]

    both(all_of_them, args, sums=8)
    if name not in PARTLY:
        assert is_native(all_of_them, args)


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_samples_without_elements_and_with_numbers(name, sample):
    """Python numbers among the arguments are constants of the program."""
    if not any(0 in np.shape(a) or type(a) is float for a in sample.args):
        return
    arrays = [a for a in sample.args if isinstance(a, np.ndarray)]

    def f(*xs):
        left = list(xs)
        return call(name, sample.params)(*[left.pop(0) if isinstance(a, np.ndarray) else a for a in sample.args])

    both(f, *arrays)


# -- dtypes and special values -----------------------------------------------------------------------------------


def specials(dtype):
    """Numbers in which a type's arithmetic has corners."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.unique(np.array([limits.min, limits.min + 1, 0, 1, 2, 3, 7, limits.max - 1, limits.max, *(
            [-1, -2, -7] if dtype.kind == "i" else [])], dtype))  # fmt: skip
    limits = np.finfo(dtype)
    finite = [0.0, 0.1, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 7.25, 30.0, 100.0]
    finite += [float(limits.smallest_subnormal), float(limits.tiny), float(limits.max), float(limits.eps), 1e15]
    return np.array([*finite, *[-x for x in finite], np.inf, -np.inf, np.nan], dtype)


#: Where NumPy's loops for signed integers have undefined behaviour, or the answer is undefined.
def defined(name, dtype, x, y=None):
    keep = np.ones(np.broadcast_shapes(np.shape(x), np.shape(y)) if y is not None else np.shape(x), bool)
    kind = np.dtype(dtype).kind
    if name in ("left_shift", "right_shift"):
        keep &= (y >= 0) & (y < 8 * np.dtype(dtype).itemsize)
    if name == "power" and kind == "i":
        keep &= y >= 0  # NumPy raises
    return keep


def takes(name, *args):
    """Whether a primitive is defined for the dtypes of arrays."""
    try:
        ff.eval_shape(call(name, {}), *args)
    except TypeError:
        return False
    return True


#: Errors that are allowed beside relative ones: of a function whose kernel for NumPy gives 0 where the answer is below
#: the normal numbers, and of one that adds a logarithm to its argument, which may cancel.
TINY = {"logistic": np.finfo(np.float32).tiny, "logaddexp2": np.finfo(np.float32).eps}


@pytest.mark.parametrize("name", [n for n in UNARY if n not in INTERPRETED])
def test_unary_functions_of_special_values(name):
    def f(xs):
        return [call(name, {})(x) for x in xs]

    xs = [x for x in map(specials, DTYPES) if takes(name, x)]
    assert xs
    both(f, xs, atol=TINY.get(name, 0.0))


@pytest.mark.parametrize("name", [*[n for n in BINARY if n not in INTERPRETED], "bitwise_and", "bitwise_or",
    "bitwise_xor", "left_shift", "right_shift", "logical_and", "logical_or", "logical_xor"])  # fmt: skip
def test_binary_functions_of_special_values(name):
    def f(pairs):
        return [call(name, {})(x, y) for x, y in pairs]

    pairs = []
    for dtype in DTYPES:
        x, y = (a.reshape(-1) for a in np.meshgrid(specials(dtype), specials(dtype)))
        if takes(name, x[:1], y[:1]):
            keep = defined(name, dtype, x, y)
            pairs.append((x[keep], y[keep]))
    assert pairs
    both(f, pairs, atol=TINY.get(name, 0.0))


@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "divide", "less", "power", "arctan2"])
def test_operands_of_two_dtypes(name):
    def f(pairs):
        return [call(name, {})(x, y) for x, y in pairs]

    small = [np.array([1, 0, 1, 1, 0], d) for d in DTYPES]
    both(f, [(x, y) for x in small for y in small if takes(name, x, y)])


@pytest.mark.parametrize("source", DTYPES)
def test_casts(source):
    x = specials(source)
    if np.dtype(source).kind == "f":
        x = x[np.isfinite(x) & (np.abs(x) < 100)]

    def f(x):
        return [x.astype(d) for d in DTYPES]

    if np.dtype(source).kind == "f":  # negative numbers have no unsigned ones
        both(lambda x: [x.astype(d) for d in DTYPES if np.dtype(d).kind != "u"], x)
        x = np.abs(x)
    both(f, x)


REDUCTIONS = {
    "sum": lambda x, axis: np.sum(x, axis),
    "prod": lambda x, axis: np.prod(x, axis),
    "max": lambda x, axis: np.max(x, axis),
    "min": lambda x, axis: np.min(x, axis),
    "any": lambda x, axis: np.any(x, axis),
    "all": lambda x, axis: np.all(x, axis),
    "argmax": lambda x, axis: np.argmax(x, axis),
    "argmin": lambda x, axis: np.argmin(x, axis),
    "cumsum": lambda x, axis: np.cumsum(x, axis),
    "mean": lambda x, axis: np.mean(x, axis),
    "var": lambda x, axis: np.var(x, axis),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_every_dtype(name):
    xs = [RNG.integers(0, 2 if d is np.bool_ else 100, (5, 7, 3)).astype(d) for d in DTYPES]

    def f(xs):
        return [REDUCTIONS[name](x, axis) for x in xs for axis in (0, 1, -1)]

    both(f, xs, ulps=64)


@pytest.mark.parametrize("dtype", FLOATS)
def test_reductions_of_what_is_no_number(dtype):
    rows = np.array([[1, np.nan, 3], [np.inf, 2, 5], [-np.inf, -np.inf, -np.inf], [np.inf, np.inf, 1],
                     [np.nan, np.nan, np.nan], [np.inf, -np.inf, 0], [0, -0.0, 0]], dtype)  # fmt: skip

    def f(x):
        parts = [REDUCTIONS[n](x, axis) for n in REDUCTIONS if n not in ("mean", "var") for axis in (0, 1)]
        return parts, [g(x, axis=a) for g in (ff.ops.softmax, ff.ops.log_softmax, ff.ops.logsumexp) for a in (0, 1)]

    both(f, rows)


# -- sizes and layouts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("first", [1, 11, 21, 31])
def test_every_small_size(first, dtype):
    def f(xs):
        return [
            (
                np.tanh(x) * y + 1,
                np.sum(x * y, axis=-1),
                np.max(x, axis=0),
                ff.ops.softmax(x, axis=-1),
                ff.ops.log_softmax(y, axis=0),
                np.argmax(x, axis=-1),
                np.cumsum(y, axis=-1),
                x @ y.T,
                np.mean(x, axis=-1, keepdims=True) - x,
                x.T[::-1],
            )
            for x, y in xs
        ]

    sizes = range(first, first + 10)
    both(f, [(RNG.standard_normal((3, n)).astype(dtype), RNG.standard_normal((3, n)).astype(dtype)) for n in sizes],
         sums=16)  # fmt: skip


LAYOUTS = {
    "in order": lambda x: x,
    "transposed": lambda x: np.asfortranarray(x),
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "strided": lambda x: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
    "sliced": lambda x: np.pad(x, 2)[2:-2, 2:-2],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_arguments_however_they_lie(layout, dtype):
    x, y = (LAYOUTS[layout](RNG.integers(0, 50, (4, 9)).astype(dtype)) for _ in range(2))

    def f(x, y):
        return x + y, x @ y.T, np.sum(x, 0), np.max(y, 1), x, x[1:, ::2], np.where(x > y, x, y[0])

    both(f, x, y)


VIEWS = {
    "transpose": lambda x: x.T,
    "reverse": lambda x: x[::-1, ::-1],
    "part": lambda x: x[1:4, 2:],
    "strides": lambda x: x[::2, 1::3],
    "row": lambda x: x[2],
    "column": lambda x: x[:, -2],
    "new axis": lambda x: x[:, None] * x[None],
    "merge": lambda x: x.reshape(-1),
    "split": lambda x: x.reshape(3, 2, 2, 3),
    "merge of a transpose": lambda x: x.T.reshape(-1),
    "split of a transpose": lambda x: x.T.reshape(2, 3, 3, 2),
    "merge of a part": lambda x: x[1:, 1:].reshape(-1),
    "again": lambda x: x.reshape(4, 9)[::-1].T.reshape(2, 18)[:, 3:],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], (2, 6, 6)).reshape(12, 6),
    "take": lambda x: x[np.array([3, -1, 0, 3])],
    "take pairs": lambda x: x[np.array([3, -1, 0]), np.array([[1], [2]])],
    "take beside a slice": lambda x: x.reshape(3, 2, 6)[np.array([0, 2]), :, np.array([5, 1])],
    "roll": lambda x: np.roll(x, 2, 1),
    "pad": lambda x: np.pad(x, ((1, 0), (2, 3))),
    "join": lambda x: np.concatenate([x, x[:2] * 2, x[::-1]]),
    "stack": lambda x: np.stack([x, x + 1, x.T], axis=1),
    "repeat": lambda x: np.repeat(x, 3, axis=1),
    "tile": lambda x: np.tile(x, (2, 3)),
    "diagonal": lambda x: np.diagonal(x),
    "triangle": lambda x: np.tril(x) - np.triu(x, 1),
    "write": lambda x: ff.at(x)[1:3, ::2].set(7),
    "write at indices": lambda x: ff.at(x)[np.array([0, 2, 0])].add(x[:3]),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_of_views(view):
    """A view is seen by what reads it elementwise, by rows, by products and by the caller."""

    def f(x, w):
        v = VIEWS[view](x)
        u = VIEWS[view](np.tanh(x) + w)
        flat = u.reshape(u.shape[0], -1)
        return v, v * 2 + u, np.sum(u, axis=-1), np.max(v, axis=0), flat @ flat.T, ff.ops.softmax(u, axis=0)

    x, w = RNG.standard_normal((6, 6)), RNG.standard_normal(6)
    both(f, x, w, sums=32)
    both(ff.grad(lambda x, w: np.sum(np.sin(VIEWS[view](np.tanh(x) * w)))), x, w, sums=32)


@st.composite
def broadcastable(draw):
    rank = draw(st.integers(0, 4))
    full = [draw(st.integers(1, 5)) for _ in range(rank)]
    shapes = []
    for _ in range(3):
        shape = [draw(st.sampled_from([1, n])) for n in full]
        shapes.append(tuple(shape[draw(st.integers(0, rank)) :]))
    return shapes


@given(broadcastable(), st.integers(0, 100))
@many
def test_broadcasting(shapes, seed):
    rng = np.random.default_rng(seed)
    a, b, c = (np.asarray(rng.standard_normal(s)) for s in shapes)

    def f(a, b, c):
        total = np.tanh(a) * b - c
        return total, np.sum(total), np.where(a > b, c, total), a + b

    both(f, a, b, c, sums=16)


# -- random programs ----------------------------------------------------------------------------------------------


def smooth(program):
    floats = len(program.shapes)
    rest = program.args[floats:]
    return (lambda *xs: program.f(*xs, *rest)), program.args[:floats]


def loss_of(f):
    def loss(*args):
        return sum(np.mean(x * np.linspace(0.5, 1.5, x.size).reshape(x.shape)) for x in tree.leaves(f(*args)))

    return loss


@given(programs(reverse=False, most=8))
@many
def test_random_programs(program):
    both(program.f, *program.args, ulps=1e5, atol=1e-11)


@given(programs(most=8))
@many
def test_gradients_of_random_programs(program):
    f, args = smooth(program)
    both(ff.value_and_grad(loss_of(f), argnums=tuple(range(len(args)))), *args, ulps=1e5, atol=1e-11)


@given(programs(reverse=False, most=5))
@many
def test_random_programs_forward_and_batched(program):
    f, args = smooth(program)
    both(lambda *xs: ff.jvp(f, xs, xs), *args, ulps=1e5, atol=1e-11)
    batch = [np.stack([a, b]) for a, b in zip(program.args, program.draw(program.seed + 1), strict=True)]
    both(ff.vmap(program.f), *batch, ulps=1e5, atol=1e-11)


@given(programs(most=4))
@many
def test_random_programs_in_single_precision(program):
    single = replace(program, source=re.sub(r"(np\.linspace\([^)]*)", r"\1, dtype=np.float32", program.source))
    f, args = smooth(single)
    args = [np.float32(a) if not np.ndim(a) else a.astype(np.float32) for a in args]
    # Where an argument is a hair from a kink both answers are right, and close.
    both(f, *args, ulps=1e3, atol=1e-4)


# -- what NumPy decides elsewhere -------------------------------------------------------------------------------


def test_parts_that_have_no_native_code_run_in_numpy():
    def f(x, h):
        order = np.sort(np.tanh(x), axis=-1)
        spectrum = (order + 1j * order) * 2
        return order * 2, spectrum, np.abs(spectrum) + 1, h * 2 + h, (h + 1).astype(np.float32) * x

    x, h = RNG.standard_normal((3, 4)), np.arange(4, dtype=np.float16)
    both(f, x, h)
    stage = ff.jit(f).lower(x, h)
    assert not stage.is_native
    assert any(s.lowered is not None for s in stage.segments)


@pytest.mark.parametrize(
    "f",
    [lambda x: np.sort(x), lambda x: (x, np.sort(x), x), lambda x: (2.5, np.sort(x) * 1j, np.array([1, 2])),
     lambda x: x[:, :0], lambda x: np.sum(x[:0], axis=0) + 1, lambda x: (x[:0] * 2, x * 2)],
)  # fmt: skip
def test_programs_with_little_or_nothing_to_compile(f):
    both(f, RNG.standard_normal((3, 4)))


def test_random_bits_are_the_same():
    def f(key):
        a, b = ff.random.split(key)
        c = ff.random.fold_in(b, 3)
        return (
            ff.random.uniform(a, (5, 3)),
            ff.random.uniform(a, (7,), np.float32),
            ff.random.bernoulli(b, 0.3, (9,)),
            ff.random.randint(c, (11,), -5, 17),
            ff.random.permutation(c, 6),
            c,
        )

    key = ff.random.key(7)
    got, expected = ff.jit(f)(key), f(key)
    assert described(got) == described(expected)
    for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_indices_out_of_bounds_are_the_nearest():
    """NumPy raises; native code reads no foreign memory, and says nothing."""
    x, i = np.arange(5.0), np.array([-7, -5, -1, 4, 5, 99])
    np.testing.assert_array_equal(ff.jit(lambda x, i: x[i])(x, i), [0, 0, 4, 4, 4, 4])
    with pytest.raises(IndexError), ff.config.override(use_native=False):
        ff.jit(lambda x, i: x[i])(x, i)
    with pytest.raises(IndexError), ff.disable_jit():
        ff.jit(lambda x, i: x[i])(x, i)


def test_native_code_does_not_warn():
    x = np.array([-1.0, 0.0, 1.0])

    def f(x):
        return np.log(x)

    with pytest.warns(RuntimeWarning), ff.config.override(use_native=False):
        ff.jit(f)(x)
    np.testing.assert_array_equal(ff.jit(f)(x), [np.nan, -np.inf, 0.0])


def test_integers_wrap_around_and_divide_by_zero_to_zero():
    x = np.array([np.iinfo(np.int64).min, -7, 7], np.int64)
    both(lambda x: (x // 0, x % 0, x // -1, abs(x), x * x, -x), x)


@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_loops_of_any_length(length):
    def cell(carry, x):
        h, n = carry
        h = np.tanh(h * 0.5 + x @ W)
        return (h, n + 1), (h[::-1], n)

    W = RNG.standard_normal((3, 3))
    xs, h = RNG.standard_normal((length, 3)), np.zeros(3)
    both(lambda h, xs: ff.scan(cell, (h, 0), xs), h, xs, sums=8)
    both(ff.grad(lambda h, xs: np.sum(ff.scan(cell, (h, 0), xs, reverse=True)[1][0]), argnums=(0, 1)), h, xs, sums=8)
    both(lambda n, h: ff.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, np.sin(c[1]) + c[1][::-1]), (0, h)),
         length, h + 1)  # fmt: skip


def test_carries_may_change_places():
    def cell(carry, x):
        a, b, c, d = carry
        return (b, c[::-1], a.T, d[::-1] + 0), a[0] + x

    carry = tuple(RNG.standard_normal((4, 3, 3)))
    both(lambda carry, xs: ff.scan(cell, carry, xs), carry, RNG.standard_normal((5, 3)))
    both(lambda n, carry: ff.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, cell(c[1], 0.0)[0]), (0, carry)),
         3, carry)  # fmt: skip


def test_branches_that_hand_on_their_operands():
    def f(i, x, y):
        return ff.switch(i, [lambda x, y: (y, x), lambda x, y: (x, x), lambda x, y: (x.T, y[::-1] * 2)], x, y)

    x, y = RNG.standard_normal((2, 3, 3))
    for i in (-1, 0, 1, 2, 5):
        both(f, i, x, y)
