"""Contractions compiled to native code, against NumPy in float64.

The operands lie between pages that must not be touched.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llvmlite")

from fnflare.compiler.llvm import engine
from fnflare.compiler.llvm.contract import Contraction, contraction, uses_blas
from fnflare.compiler.llvm.tiles import Machine
from fnflare.kernels import mkl
from fnflare.nest import DTYPES, Buffer, Contract, ContractLoop, Index, Part, Size, index

PROT_NONE = 0

Loops = tuple[ContractLoop, ...]

SHARE = {
    "serial": """
define internal void @share(ptr %body, ptr %context, i64 %extent, i64 %least) {
  call void %body(ptr %context, i64 0, i64 %extent)
  ret void
}""",
    # As two threads would, one after the other, the later part first.
    "parts": """
define internal void @share(ptr %body, ptr %context, i64 %extent, i64 %least) {
  %half = udiv i64 %extent, 2
  call void %body(ptr %context, i64 %half, i64 %extent)
  %some = icmp sgt i64 %half, 0
  br i1 %some, label %first, label %done
first:
  call void %body(ptr %context, i64 0, i64 %half)
  br label %done
done:
  ret void
}""",
}


def contract_of(loops: Loops, dtype: str = "f32", accumulate: bool = False) -> Contract:
    parts = [Part(Buffer(name, dtype, index(1), "parameter"), index(0)) for name in ("out", "a", "b")]
    return Contract(parts[0], parts[1], parts[2], loops, accumulate)


@functools.cache
def compiled(definition: str, name: str, declarations: tuple[str, ...], sizes: int, share: str) -> Callable[..., None]:
    arguments = ", ".join(["ptr %o", "ptr %a", "ptr %b", *[f"i64 %x{n}" for n in range(sizes)]])
    main = f"define void @main({arguments}) {{\n  call void @{name}({arguments})\n  ret void\n}}"
    code = engine.load(engine.compile_text("\n".join([SHARE[share], definition, *declarations, main])))
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * sizes)
    function = kind(code.address("main"))

    def call(*arguments: int) -> None:
        assert code is not None  # which must live as long as the function
        function(*arguments)

    return call


def loops_of(*loops: tuple[int, int, int, int]) -> Loops:
    return tuple([ContractLoop(*[index(n) for n in loop]) for loop in loops])


class Guarded:
    """An array that ends where a page ends, or begins where one begins, between pages that must not be touched."""

    libc = ctypes.CDLL(None)

    def __init__(self, values: np.ndarray, at_end: bool = True) -> None:
        page = mmap.PAGESIZE
        size = -(-values.nbytes // page) * page
        self.memory = mmap.mmap(-1, size + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for edge in (start, start + page + size):
            assert self.libc.mprotect(ctypes.c_void_p(edge), page, PROT_NONE) == 0
        self.address = start + page + (size - values.nbytes if at_end else 0)
        raw = (ctypes.c_char * values.nbytes).from_address(self.address)
        self.array = np.frombuffer(raw, values.dtype).reshape(values.shape)
        self.array[...] = values


def run(
    contract: Contract,
    out: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    sizes: dict[str, int] | None = None,
    share: str = "parts",
    starts: tuple[int, int, int] = (0, 0, 0),
    made: Contraction | None = None,
) -> np.ndarray:
    """What a contraction leaves in `out`, whose elements that it does not own must keep their values."""
    made = made or contraction(contract)
    function = compiled(made.definition, made.name, made.declarations, len(made.sizes), share)
    numbers = [at(size, sizes or {}) for size in made.sizes]
    answers = []
    for at_end in (True, False):
        operands = [Guarded(x, at_end) for x in (out, a, b)]
        function(
            *[x.address + s * x.array.itemsize for x, s in zip(operands, starts, strict=True)],
            *numbers,
        )
        answers.append(operands[0].array.copy())
    np.testing.assert_array_equal(answers[0], answers[1])
    return answers[0]


def at(value: Index, sizes: dict[str, int]) -> int:
    found = value.replace({Size(name): index(n) for name, n in sizes.items()}).constant
    assert found is not None
    return found


def oracle(
    loops: Loops,
    out: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    accumulate: bool,
    starts: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """The definition, on flat arrays in float64."""
    turns = np.indices(known(x.extent for x in loops)).reshape(len(loops), -1)
    o, x, y = [
        start + np.array(known(getattr(loop, name) for loop in loops)) @ turns
        for start, name in zip(starts, ("out", "a", "b"), strict=True)
    ]
    total = out.astype(np.float64).copy()
    flat = total.reshape(-1)
    if not accumulate:
        flat[o] = 0
    np.add.at(flat, o, a.reshape(-1).astype(np.float64)[x] * b.reshape(-1).astype(np.float64)[y])
    return total


def known(values: Iterable[Index]) -> list[int]:
    numbers = [x.constant for x in values]
    assert None not in numbers
    return [n or 0 for n in numbers]


def einsum_loops(spec: str, dims: dict[str, Index | int]) -> Loops:
    """The loops of an einsum of arrays in C order."""
    inputs, out = spec.split("->")
    a, b = inputs.split(",")

    def strides(letters: str) -> dict[str, Index]:
        found, stride = {}, index(1)
        for c in reversed(letters):
            found[c], stride = stride, stride * dims[c]
        return found

    of = [strides(x) for x in (out, a, b)]
    return tuple([ContractLoop(index(dims[c]), *[s.get(c, index(0)) for s in of]) for c in dict.fromkeys(out + a + b)])


def close(got: np.ndarray, want: np.ndarray, turns: int) -> None:
    """Within the rounding of a sum of so many products of numbers of size 1, in any order."""
    eps = np.finfo(got.dtype).eps
    np.testing.assert_allclose(got, want, rtol=8 * eps, atol=8 * eps * (4 + turns**0.5 * 2))


def check_einsum(
    spec: str,
    dims: dict[str, int],
    dtype: str = "f32",
    accumulate: bool = False,
    dynamic: str = "",
    machine: Machine | None = None,
    share: str = "parts",
    blas: bool = False,
) -> None:
    inputs, o = spec.split("->")
    a, b = inputs.split(",")
    rng = np.random.default_rng(sum(dims.values()))
    kind = DTYPES[dtype]
    x, y, z = [rng.uniform(-1, 1, [dims[c] for c in letters]).astype(kind) for letters in (a, b, o)]
    unknown: dict[str, Index | int] = {c: index(Size(c)) if c in dynamic else n for c, n in dims.items()}
    contract = contract_of(einsum_loops(spec, unknown), dtype, accumulate)
    made = contraction(contract, blas, machine)
    assert ("cblas" in made.definition) == blas
    assert (len(made.sizes) > 0) == bool(dynamic)
    start = z if accumulate else np.full_like(z, np.nan)
    got = run(contract, start, x, y, dims, share, made=made)
    want = np.einsum(spec, x.astype(np.float64), y.astype(np.float64), optimize=True)
    summed = int(np.prod([n for c, n in dims.items() if c not in o]))
    close(got, want + (z if accumulate else 0), summed)


PRODUCTS = ["mk,kn->mn", "mk,nk->mn", "km,kn->mn", "km,nk->mn", "mk,kn->nm", "mk,nk->nm", "km,kn->nm", "km,nk->nm"]


@pytest.mark.parametrize("spec", PRODUCTS)
@pytest.mark.parametrize(
    "shape", [(32, 25, 100), (1, 25, 100), (32, 100, 25), (1, 100, 25), (32, 100, 2), (100, 37, 10)]
)
def test_small_products(spec: str, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    check_einsum(spec, {"m": m, "k": k, "n": n})


@settings(max_examples=60)
@given(
    spec=st.sampled_from(PRODUCTS),
    dims=st.tuples(*[st.integers(1, 20)] * 3),
    dtype=st.sampled_from(["f32", "f64"]),
    accumulate=st.booleans(),
    dynamic=st.sampled_from(["", "m", "n", "k", "mk", "mnk"]),
)
def test_products_of_odd_sizes(
    spec: str, dims: tuple[int, int, int], dtype: str, accumulate: bool, dynamic: str
) -> None:
    check_einsum(spec, dict(zip("mkn", dims, strict=True)), dtype, accumulate, dynamic)


@pytest.mark.parametrize("spec", PRODUCTS)
@pytest.mark.parametrize("dynamic", ["", "m", "k", "n", "mkn"])
def test_products_in_blocks(spec: str, dynamic: str) -> None:
    """Sums so long that they are done in several blocks, and rows enough to be shared out."""
    check_einsum(spec, {"m": 131, "k": 1100, "n": 45}, dynamic=dynamic)
    check_einsum(spec, {"m": 61, "k": 1100, "n": 33}, dynamic=dynamic, dtype="f64", accumulate=True)


@pytest.mark.parametrize(
    "spec",
    [
        "bmk,bkn->bmn",
        "bmk,bnk->bmn",
        "bkm,bkn->bmn",
        "bmk,kn->bmn",
        "mk,bkn->bmn",
        "bmk,bkn->mbn",
        "mbk,nbk->bmn",
        "bmk,bmn->kn",
        "bmk,bkn->mnb",
        "bm,bn->bmn",
        "bmn,bmn->bmn",
        "bmn,bn->bm",
        "bmn,bmn->",
        "bm,n->bmn",
        "mn,mn->m",
        "m,m->",
        "m,n->mn",
        "mn,n->m",
        "mn,m->n",
        "bhmk,bhnk->bhmn",
        "bmhk,bnhk->bhmn",
        "bhmn,bnhk->bmhk",
    ],
)
@pytest.mark.parametrize("dynamic", ["", "b", "m", "bmk"])
def test_batches_and_vectors(spec: str, dynamic: str) -> None:
    letters = sorted(set(spec) - set(",->"))
    if not set(dynamic) & set(letters) and dynamic:
        return
    sizes = {"b": 5, "h": 3, "m": 19, "n": 13, "k": 21}
    for accumulate in (False, True):
        check_einsum(spec, {c: sizes[c] for c in letters}, accumulate=accumulate, dynamic=dynamic)


@pytest.mark.parametrize("machine", [Machine(512, 32), Machine(256, 16), Machine(128, 32), Machine(128, 16)], ids=str)
@pytest.mark.parametrize("spec", ["mk,kn->mn", "mk,nk->mn", "km,kn->mn", "mk,kn->nm"])
def test_vectors_of_all_widths(machine: Machine, spec: str) -> None:
    for m, k, n in [(7, 9, 35), (13, 50, 3), (40, 300, 70)]:
        for dynamic in ("", "mn"):
            check_einsum(spec, {"m": m, "k": k, "n": n}, machine=machine, dynamic=dynamic)


@pytest.mark.parametrize("dtype", ["i8", "u8", "i32", "i64", "u16"])
def test_integers_wrap_around(dtype: str) -> None:
    rng = np.random.default_rng(0)
    kind = DTYPES[dtype]
    x, y = [rng.integers(0, np.iinfo(kind).max, shape).astype(kind) for shape in ((9, 14), (14, 11))]
    got = run(contract_of(einsum_loops("mk,kn->mn", {"m": 9, "k": 14, "n": 11}), dtype), np.zeros((9, 11), kind), x, y)
    np.testing.assert_array_equal(got, x @ y)


def test_truth_values() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((9, 14)) < 0.2, rng.random((14, 11)) < 0.2
    got = run(contract_of(einsum_loops("mk,kn->mn", {"m": 9, "k": 14, "n": 11}), "b1"), np.zeros((9, 11), bool), x, y)
    np.testing.assert_array_equal(got, x @ y)


@pytest.mark.parametrize("dims", [{"m": 0, "k": 3, "n": 4}, {"m": 3, "k": 0, "n": 4}, {"m": 3, "k": 4, "n": 0}])
def test_nothing_to_sum_is_zero(dims: dict[str, int]) -> None:
    contract = contract_of(einsum_loops("mk,kn->mn", dims))
    made = contraction(contract)
    out = np.full((dims["m"], dims["n"]), np.nan, np.float32)
    function = compiled(made.definition, made.name, made.declarations, 0, "serial")
    function(out.ctypes.data, 0, 0)
    assert (out == 0).all()


def test_what_lies_between_the_elements_of_the_answer_stays() -> None:
    """Columns of one matrix are written into columns of another, among others."""
    loops = loops_of((7, 40, 30, 0), (13, 1, 0, 50), (30, 0, 1, 1))
    rng = np.random.default_rng(1)
    out, a, b = [rng.uniform(-1, 1, n).astype(np.float32) for n in (6 * 40 + 20, 210, 12 * 50 + 30)]
    for accumulate in (False, True):
        got = run(contract_of(loops, "f32", accumulate), out, a, b, starts=(5, 0, 0))
        close(got, oracle(loops, out, a, b, accumulate, (5, 0, 0)), 30)


def test_equal_structure_gives_equal_names() -> None:
    def made(m: Index | int, k: int = 8, accumulate: bool = False) -> Contraction:
        return contraction(contract_of(einsum_loops("mk,kn->mn", {"m": m, "k": k, "n": 16}), "f32", accumulate))

    one, other = made(index(Size("steps"))), made(index(Size("rows")) * 2)
    assert one.name == other.name and one.definition == other.definition
    assert one.sizes == (index(Size("steps")),) and other.sizes == (index(Size("rows")) * 2,)
    assert len({one.name, made(4).name, made(5).name, made(4, 9).name, made(4, 8, True).name}) == 5
    batched = contraction(contract_of(einsum_loops("abk,kn->abn", {"a": 2, "b": 2, "k": 8, "n": 16})))
    assert batched.name == made(4).name  # rows that lie one after the other are one loop


# -- convolutions ---------------------------------------------------------------------------------------------


def conv_loops(
    n: int, h: int, w: int, c: int, kh: int, kw: int, f: int, stride: tuple[int, int]
) -> tuple[Loops, Loops, Loops, tuple[int, int]]:
    """The loops of a convolution without padding of NHWC by HWIO; the gradient by the filter; that by the input as a
    sum over the filter's places, each of which adds to other elements; and the size of the answer."""
    oh, ow = (h - kh) // stride[0] + 1, (w - kw) // stride[1] + 1

    def loop(extent: int, y: int, x: int, k: int) -> ContractLoop:
        return ContractLoop(index(extent), index(y), index(x), index(k))

    turns = [
        loop(n, oh * ow * f, h * w * c, 0),
        loop(oh, ow * f, stride[0] * w * c, 0),
        loop(ow, f, stride[1] * c, 0),
        loop(f, 1, 0, 1),
        loop(kh, 0, w * c, kw * c * f),
        loop(kw, 0, c, c * f),
        loop(c, 0, 1, f),
    ]
    forward = tuple(turns)
    by_filter = tuple([ContractLoop(x.extent, x.b, x.a, x.out) for x in turns])
    by_input = tuple([ContractLoop(x.extent, x.a, x.out, x.b) for n, x in enumerate(turns) if n not in (4, 5)])
    return forward, by_filter, by_input, (oh, ow)


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((3, 12, 12, 20, 5, 5, 50), (1, 1)),
        ((2, 28, 28, 1, 5, 5, 20), (1, 1)),
        ((3, 9, 8, 3, 3, 2, 7), (2, 1)),
        ((2, 11, 10, 4, 3, 3, 9), (2, 3)),
        ((2, 1, 20, 30, 1, 3, 17), (1, 1)),
        ((40, 6, 6, 8, 3, 3, 16), (1, 1)),
    ],
)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_convolutions_and_their_gradients(shape: tuple[int, ...], stride: tuple[int, int], dtype: str) -> None:
    n, h, w, c, kh, kw, f = shape
    forward, by_filter, by_input, (oh, ow) = conv_loops(n, h, w, c, kh, kw, f, stride)
    rng = np.random.default_rng(0)
    kind = DTYPES[dtype]
    x, k, dy = [rng.uniform(-1, 1, s).astype(kind) for s in ((n, h, w, c), (kh, kw, c, f), (n, oh, ow, f))]
    nans = functools.partial(np.full, fill_value=np.nan, dtype=kind)

    y = np.zeros((n, oh, ow, f))
    dk = np.zeros((kh, kw, c, f))
    dx = np.zeros((n, h, w, c))
    got = np.zeros((n, h, w, c), kind)
    for i in range(kh):
        for j in range(kw):
            window = np.s_[:, i : i + oh * stride[0] : stride[0], j : j + ow * stride[1] : stride[1]]
            y += x[window].astype(np.float64) @ k[i, j]
            dk[i, j] = np.einsum("nhwc,nhwf->cf", x[window].astype(np.float64), dy.astype(np.float64), optimize=True)
            dx[window] += dy.astype(np.float64) @ k[i, j].T
            starts = (i * w + j) * c, 0, (i * kw + j) * c * f
            got = run(contract_of(by_input, dtype, True), got, dy, k, starts=starts)
    close(run(contract_of(forward, dtype), nans(y.shape), x, k), y, kh * kw * c)
    close(run(contract_of(by_filter, dtype), nans(dk.shape), x, dy), dk, n * oh * ow)
    close(got, dx, kh * kw * f)


def test_gradient_by_the_input_as_one_contraction() -> None:
    """Of padded gradients with the filter turned around: strides below 0."""
    n, h, w, c, kh, kw, f = 3, 9, 7, 20, 3, 2, 11
    rng = np.random.default_rng(0)
    dy = rng.uniform(-1, 1, (n, h + kh - 1, w + kw - 1, f)).astype(np.float32)
    k = rng.uniform(-1, 1, (kh, kw, c, f)).astype(np.float32)
    wide = w + kw - 1
    turns = [
        (n, h * w * c, (h + kh - 1) * wide * f, 0),
        (h, w * c, wide * f, 0),
        (w, c, f, 0),
        (c, 1, 0, f),
        (kh, 0, -wide * f, kw * c * f),
        (kw, 0, -f, c * f),
        (f, 0, 1, 1),
    ]
    loops = loops_of(*turns)
    starts = 0, ((kh - 1) * wide + kw - 1) * f, 0
    out = np.full((n, h, w, c), np.nan, np.float32)
    got = run(contract_of(loops), out, dy, k, starts=starts)
    close(got, oracle(loops, out, dy, k, False, starts), kh * kw * f)


# -- any loops ------------------------------------------------------------------------------------------------


@st.composite
def some_loops(draw: st.DrawFn) -> Loops:
    """Loops with strides such that no two turns over the answer meet."""
    count = draw(st.integers(1, 5))
    order = draw(st.permutations(range(count)))
    extents = [draw(st.integers(1, 11)) for _ in range(count)]
    strides = [0] * count
    stride = draw(st.integers(1, 2))
    for n in order:
        if draw(st.booleans()):
            strides[n], stride = stride, stride * extents[n] + draw(st.integers(0, 2))
    moves = st.sampled_from([0, 0, 1, 1, 2, 5, 16])
    return loops_of(*[(e, n, draw(moves), draw(moves)) for e, n in zip(extents, strides, strict=True)])


@settings(max_examples=60)
@given(loops=some_loops(), dtype=st.sampled_from(["f32", "f64"]), accumulate=st.booleans())
def test_any_loops(loops: Loops, dtype: str, accumulate: bool) -> None:
    extents = known(x.extent for x in loops)
    strides = [known(getattr(x, name) for x in loops) for name in ("out", "a", "b")]
    lengths = [1 + sum((e - 1) * s for e, s in zip(extents, of, strict=True)) for of in strides]
    rng = np.random.default_rng(0)
    out, a, b = [rng.uniform(-1, 1, n).astype(DTYPES[dtype]) for n in lengths]
    got = run(contract_of(loops, dtype, accumulate), out, a, b)
    turns = int(np.prod(known(x.extent for x in loops if x.out == 0)))
    # Higham, Accuracy and Stability of Numerical Algorithms, 3.5: terms may repeat, and then so do roundings.
    bound = (turns + 2) * np.finfo(got.dtype).eps * oracle(loops, abs(out), abs(a), abs(b), accumulate)
    assert (abs(got - oracle(loops, out, a, b, accumulate)) <= bound).all()


# -- BLAS -----------------------------------------------------------------------------------------------------


@functools.cache
def add_blas() -> None:
    library = mkl._library()
    if library is None:
        pytest.skip("needs MKL")
    for name in ("cblas_sgemm", "cblas_dgemm"):
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        assert address is not None
        engine.add_symbol(name, address)


@pytest.mark.parametrize(
    "spec", [*PRODUCTS, "bmk,bkn->bmn", "bmk,bnk->bmn", "bmk,kn->bmn", "mbk,nbk->bmn", "bhmk,bhkn->bmhn"]
)
@pytest.mark.parametrize("dynamic", ["", "m", "b", "mb"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_products_by_blas(spec: str, dynamic: str, dtype: str) -> None:
    add_blas()
    sizes = {"b": 2, "h": 2, "m": 70, "n": 360, "k": 380}
    letters = sorted(set(spec) - set(",->"))
    if dynamic and not set(dynamic) & set(letters):
        return
    for accumulate in (False, True):
        check_einsum(spec, {c: sizes[c] for c in letters}, dtype, accumulate, dynamic, blas=True)


def test_blas_does_what_is_large_and_plain() -> None:
    def uses(spec: str, dims: dict[str, Index | int], dtype: str = "f32") -> bool:
        return uses_blas(contract_of(einsum_loops(spec, dims), dtype))

    large: dict[str, Index | int] = {"m": 512, "k": 512, "n": 512}
    assert all(uses(spec, large) for spec in PRODUCTS)
    assert uses("mk,kn->mn", {**large, "m": index(Size("rows")) * 8})
    assert not uses("mk,kn->mn", {**large, "m": 1})
    assert not uses("mk,kn->mn", {"m": 32, "k": 25, "n": 100})
    assert not uses("mk,kn->mn", large, "i32")
    assert not uses("mk,mkn->mn", large)
    forward, by_filter, _, _ = conv_loops(4, 60, 60, 32, 3, 3, 64, (1, 1))
    assert not uses_blas(contract_of(forward)) and not uses_blas(contract_of(by_filter))


def test_rows_that_overlap_are_no_matrix_for_blas() -> None:
    """A convolution along time reads each row several times: its rows lie closer than they are long."""
    assert not uses_blas(contract_of(conv_loops(1, 1, 600, 300, 1, 3, 100, (1, 1))[0]))
