"""What calls of NumPy's functions of shapes and elements do at the edges: wrong arguments, other dtypes, derivatives
where a plain composition would give nan."""

import copy

import numpy as np
import pytest

import fnflare as ff
from fnflare.errors import ConcretizationError, FnflareError, TracerArrayError, UnsupportedError

V, X, CUBE = np.array([1.0, -2.0, 0.5]), np.arange(6.0).reshape(2, 3) - 2.2, np.arange(12.0).reshape(2, 3, 2)
IDS = np.array([0, 2])

#: Calls that NumPy refuses too.
WRONG = {
    "reshape": lambda x: np.reshape(x, (4, -1)),
    "reshape two unknown": lambda x: np.reshape(x[:1, :1], (-1, -1)),
    "reshape order": lambda x: np.reshape(x, -1, order="X"),
    "squeeze": lambda x: np.squeeze(x, 0),
    "expand_dims": lambda x: np.expand_dims(x, 5),
    "expand_dims twice": lambda x: np.expand_dims(x, (0, 0)),
    "transpose": lambda x: np.transpose(x, (0, 0)),
    "swapaxes": lambda x: np.swapaxes(x, 0, 2),
    "moveaxis": lambda x: np.moveaxis(x, (0, 1), 0),
    "rollaxis": lambda x: np.rollaxis(x, 0, 5),
    "matrix_transpose": lambda x: np.matrix_transpose(x[0]),
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 4)),
    "broadcast_arrays": lambda x: np.broadcast_arrays(x, np.ones(4)),
    "concatenate": lambda x: np.concatenate([x, x[0]]),
    "concatenate scalars": lambda x: np.concatenate([x[0, 0], x[0, 0]]),
    "concatenate axis": lambda x: np.concatenate([x, x], 2),
    "concatenate casting": lambda x: np.concatenate([x, x], dtype=int, casting="safe"),
    "stack": lambda x: np.stack([x, x[0]]),
    "hstack": lambda x: np.hstack([x, x[0]]),
    "dstack": lambda x: np.dstack([x, x[0]]),
    "block depths": lambda x: np.block([[x], x]),
    "block empty": lambda x: np.block([x, []]),
    "split": lambda x: np.split(x, 2, axis=1),
    "array_split": lambda x: np.array_split(x, 0),
    "vsplit": lambda x: np.vsplit(x[0], 1),
    "dsplit": lambda x: np.dsplit(x, 1),
    "hsplit": lambda x: np.hsplit(x[0, 0], 1),
    "unstack": lambda x: np.unstack(x[0, 0]),
    "fliplr": lambda x: np.fliplr(x[0]),
    "flip": lambda x: np.flip(x, 2),
    "rot90": lambda x: np.rot90(x, axes=(0, 0)),
    "rot90 axes": lambda x: np.rot90(x, axes=(0, 1, 1)),
    "roll": lambda x: np.roll(x, 1, axis=2),
    "tile": lambda x: np.tile(x, 1.5),
    "repeat": lambda x: np.repeat(x, [1, 2, 3], axis=0),
    "repeat negative": lambda x: np.repeat(x, -1),
    "resize": lambda x: np.resize(x, (2, -1)),
    "meshgrid": lambda x: np.meshgrid(x[0], indexing="yx"),
    "delete": lambda x: np.delete(x, 7, axis=0),
    "insert": lambda x: np.insert(x, 7, 1.0),
    "insert shape": lambda x: np.insert(x, [0, 1], np.ones(3), axis=0 if x.shape[0] > 2 else 1),
    "compress": lambda x: np.compress([[True]], x),
    "compress long": lambda x: np.compress([True] * 4, x, axis=1),
    "diagonal": lambda x: np.diagonal(x[0]),
    "unravel_index": lambda x: np.unravel_index(x, (2, 3)),
    "ravel_multi_index": lambda x: np.ravel_multi_index([np.argmax(x)], (2, 3)),
    "ix_": lambda x: np.ix_(x),
    "sliding_window_view": lambda x: np.lib.stride_tricks.sliding_window_view(x, 7, axis=1),
    "diagonal axes": lambda x: np.diagonal(x, axis1=1, axis2=1),
    "diag": lambda x: np.diag(x[None]),
    "trace": lambda x: np.trace(x[0]),
    "take": lambda x: np.take(x, 9),
    "take_along_axis": lambda x: np.take_along_axis(x, IDS, axis=1),
    "pad mode": lambda x: np.pad(x, 1, "mirror"),
    "pad keyword": lambda x: np.pad(x, 1, "edge", constant_values=2),
    "pad negative": lambda x: np.pad(x, -1),
    "pad float": lambda x: np.pad(x, 1.0),
    "pad width": lambda x: np.pad(x, (1, 2, 3)),
    "pad empty": lambda x: np.pad(x[:0], 1, "edge"),
    "pad stat_length": lambda x: np.pad(x, 1, "maximum", stat_length=0),
    "diff": lambda x: np.diff(x, -1),
    "diff scalar": lambda x: np.diff(x[0, 0]),
    "ediff1d": lambda x: np.ediff1d(x, to_end=1j),
    "gradient": lambda x: np.gradient(x, 1.0, 2.0, 3.0),
    "gradient short": lambda x: np.gradient(x, edge_order=2),
    "gradient order": lambda x: np.gradient(x, edge_order=3),
    "gradient spacing": lambda x: np.gradient(x, V[:2], axis=1),
    "trapezoid": lambda x: np.trapezoid(x, np.ones(5)),
    "convolve": lambda x: np.convolve(x, V),
    "convolve empty": lambda x: np.convolve(x[0], []),
    "convolve mode": lambda x: np.convolve(x[0], V, "most"),
    "correlate": lambda x: np.correlate(x, x),
    "interp": lambda x: np.interp(x, V, V[:2]),
    "interp period": lambda x: np.interp(x, V, V, period=0),
    "cross": lambda x: np.cross(x, np.ones(4)),
    "cross scalar": lambda x: np.cross(x, 1.0),
    "einsum operands": lambda x: np.einsum("ij,jk", x),
    "einsum letters": lambda x: np.einsum("ijk", x),
    "einsum output": lambda x: np.einsum("ij->k", x),
    "einsum output twice": lambda x: np.einsum("ij->ii", x),
    "einsum sign": lambda x: np.einsum("i+", x),
    "einsum dots": lambda x: np.einsum("...j->j", x),
    "einsum sizes": lambda x: np.einsum("ij,ij", x, x.T),
    "einsum casting": lambda x: np.einsum("ij->j", x, dtype=np.float32),
    "einsum nothing": lambda x: np.einsum(),
    "select": lambda x: np.select([x > 0], [x, x]),
    "select nothing": lambda x: np.select([], [], x),
    "select dtype": lambda x: np.select([np.ones((2, 3))], [x]),
    "choose": lambda x: np.choose([0, 2, 0], x),
    "piecewise": lambda x: np.piecewise(x, [x > 0], [1.0, 2.0, 3.0]),
    "where": lambda x: np.where(x > 0, x),
    "apply_along_axis": lambda x: np.apply_along_axis(np.sum, 2, x),
    "apply_along_axis empty": lambda x: np.apply_along_axis(np.sum, 1, x[:0]),
    "apply_over_axes": lambda x: np.apply_over_axes(lambda a, i: np.sum(a), x, [0]),
    "vander": np.vander,
    "polyder": lambda x: np.polyder(x[0], -1),
    "polyint": lambda x: np.polyint(x[0], 3, [1.0, 2.0]),
    "linspace": lambda x: np.linspace(x, 2.0, -1),
    "index": lambda x: x[3],
    "index many": lambda x: x[0, 0, 0],
    "index dots": lambda x: x[..., ...],
    "index mask": lambda x: x[np.array([True, False, True])],
    "index arrays": lambda x: x[[0, 1], [0, 1, 2]],
    "index text": lambda x: x["a"],
    "index float": lambda x: x[1.0],
    "index inexact": lambda x: x[x[0, 0]],
    "roll shifts": lambda x: np.roll(x, [[1, 2], [3, 4]], [0, 1]),
    "fft axis": lambda x: np.fft.fft(x, axis=2),
    "fft2 axes": lambda x: np.fft.fft2(x, axes=(0, 5)),
    "polyfit lengths": lambda x: np.polyfit(x[0], x[1, :2], 1),
    "polyfit nothing": lambda x: np.polyfit(x[0, :0], x[1, :0], 1),
    "polyfit degree": lambda x: np.polyfit(x[0], x[1], -1),
    "roots": lambda x: np.roots(x),
    "take mode": lambda x: np.take(x, [0], mode="near"),
    "histogram weights": lambda x: np.histogram(x, "auto", weights=x),
    "histogram edges": lambda x: np.histogram(x, [[1, 2], [3, 4]]),
    "histogram bins": lambda x: np.histogram(x, 2.5),
    "histogram bins of a tracer": lambda x: np.histogram(x, x[0, 0]),
    "searchsorted": lambda x: np.searchsorted(x, x),
    "unravel_index order": lambda x: np.unravel_index(np.argmax(x), (2, 3), order="K"),
    "polyint order": lambda x: np.polyint(x[0], -1),
    "quantile shape": lambda x: np.quantile(x, np.full((1, 1, 1), 0.5)),
    "quantile complex": lambda x: np.quantile(x * 1j, 0.5),
    "max of nothing": lambda x: np.max(x[:0], axis=0),
    "cov": lambda x: np.cov(x[None]),
    "correlate mode": lambda x: np.correlate(x[0], x[1, :2], 3),
    "correlate negative mode": lambda x: np.correlate(x[0], x[1, :2], -1),
    "axes of elements": lambda x: np.add(x, 1, axes=[(0,), (0,), (0,)]),
    "reduce nothing": lambda x: np.arctan2.reduce(x[:0]),
}
if np.lib.NumpyVersion(np.__version__) >= "2.2.0":
    WRONG["trim_zeros"] = lambda x: np.trim_zeros(x[0], "q")


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
@pytest.mark.filterwarnings("ignore:Arrays of 2-dimensional")
def test_what_numpy_refuses_is_refused_as_numpy_does(call):
    with pytest.raises(Exception) as numpys:  # noqa: PT011 (whatever NumPy raises)
        call(X)
    kind = next(
        k
        for k in (np.exceptions.AxisError, ValueError, TypeError, IndexError, Exception)
        if isinstance(numpys.value, k)
    )
    for trace in (lambda: ff.vjp(call, X), lambda: ff.eval_shape(call, X)):
        with pytest.raises(kind):
            trace()


#: Calls that need to write into an array or to know a value, and what the message says to write instead.
REFUSED = {
    "copyto": (lambda x: np.copyto(np.zeros(3), x), r"np\.copyto.*np\.where\(where, src, dst\)"),
    "fill_diagonal": (lambda x: np.fill_diagonal(x[None], 1.0), r"ff\.at\(a\)\[i, i\]\.set"),
    "place": (lambda x: np.place(x, x > 0, [1.0]), r"np\.place.*np\.where"),
    "put": (
        lambda x: np.put(np.zeros(3), [0], x[0] * np.ones(1)) or np.put(x, [0], 1.0),
        r"ff\.at\(a\.reshape\(-1\)\)",
    ),
    "put_along_axis": (lambda x: np.put_along_axis(np.zeros(3), IDS, x[:2], 0), r"ff\.at\(arr\)\[i, indices\]\.set"),
    "putmask": (lambda x: np.putmask(x, x > 0, 1.0), r"np\.where\(mask, values, a\)"),
    "fill": (lambda x: x.fill(1.0), r"ndarray\.fill.*np\.full_like"),
    "method put": (lambda x: x.put([0], 1.0), r"ndarray\.put.*ff\.at"),
    "method resize": (lambda x: x.resize(4), r"ndarray\.resize.*np\.resize"),
    "setitem": (lambda x: x.__setitem__(0, 1.0), r"ff\.at\(x\)\[i\]\.set"),
    "array": (lambda x: np.array([x, x]), r"np\.stack"),
    "asarray": (lambda x: np.asarray(x), r"use t as it is"),
    "ascontiguousarray": (lambda x: np.ascontiguousarray(x), r"use t as it is"),
    "asanyarray": (lambda x: np.asanyarray(x), r"use t as it is"),
    "asfortranarray": (lambda x: np.asfortranarray(x), r"use t as it is"),
    "array of elements": (lambda x: np.array([x[0], 1.0]), r"np\.stack"),
    "index by float": (lambda x: V[x], r"ff\."),
}


@pytest.mark.parametrize(("call", "advice"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_write_in_place_says_what_to_write(call, advice):
    for trace in (lambda: ff.vjp(call, V), lambda: ff.jvp(call, (V,), (V,)), lambda: ff.eval_shape(call, V)):
        with pytest.raises(FnflareError, match=advice) as error:
            trace()
        assert isinstance(error.value, (TracerArrayError, ConcretizationError))


#: Calls whose answer has a size that depends on values: of tracers with a value they have one, of others not.
UNKNOWN = {
    "where": lambda x: x[np.where(x > 0)],
    "nonzero": lambda x: x[np.nonzero(x > 0)],
    "flatnonzero": lambda x: x[np.flatnonzero(x > 0)],
    "argwhere": lambda x: x[np.argwhere(x > 0)[:, 0]],
    "extract": lambda x: np.extract(x > 0, x),
    "compress": lambda x: np.compress(x > 0, x),
    "trim_zeros": lambda x: np.trim_zeros(np.maximum(x, 0)),
    "delete": lambda x: np.delete(x, x > 0),
    "mask": lambda x: x[x > 0],
    "mask beside an integer": lambda x: x[None, :][0, x > 0],
    "write at a mask": lambda x: ff.at(x)[x > 0].set(1.0),
}


@pytest.mark.parametrize("call", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_sizes_that_depend_on_values_are_known_where_values_are(call):
    np.testing.assert_array_equal(ff.vjp(call, V)[0], call(V))
    np.testing.assert_array_equal(ff.jvp(call, (V,), (V,))[0], call(V))
    for trace in (lambda: ff.jit(call)(V), lambda: ff.vmap(call)(np.stack([V, V])), lambda: ff.eval_shape(call, V)):
        with pytest.raises(ConcretizationError, match=r"np\.where"):
            trace()


def test_repeats_that_are_traced_are_refused():
    with pytest.raises(ConcretizationError, match=r"np\.repeat.*static_argnums"):
        ff.jit(lambda x, n: np.repeat(x, n))(V, np.array([1, 2, 1]))
    with pytest.raises(UnsupportedError, match=r"np\.argpartition: kth=.*np\.argsort"):
        ff.jit(np.argpartition)(V, 1)
    with pytest.raises(UnsupportedError, match="one axis at a time"):
        ff.jit(lambda x, n: np.roll(x, n, (0, 1)))(X, IDS)


def test_lists_take_part_in_ufuncs():
    for call in (lambda x: np.add(x, [1, 2, 3]), lambda x: (1, 2, 3) * x, lambda x: np.multiply([[1], [2]], x)):
        np.testing.assert_array_equal(ff.vjp(call, V)[0], call(V))
        np.testing.assert_array_equal(ff.jit(call)(V), call(V))


def test_lists_of_tracers_are_no_index():
    with pytest.raises(ConcretizationError, match=r"an index list holds a tracer; write np\.stack"):
        ff.jit(lambda x: x[[np.argmax(x), 0]])(V)


def test_python_numbers_give_way_in_result_types():
    for number in (2, 2.0, 2j):
        expected = np.result_type(number, np.float32)
        assert ff.jit(lambda x: np.zeros((), np.result_type(x, np.float32)))(number).dtype == expected
        assert ff.jit(lambda x, y: np.zeros((), np.result_type(x, y)))(number, np.float32(1)).dtype == expected


def test_a_dtype_that_an_array_has_is_no_conversion():
    if hasattr(np, "astype"):
        assert ff.vjp(lambda x: 1.0 * (np.astype(x, float) is x), V)[0] == 1
        assert ff.jit(lambda x: np.astype(x, np.float64) * np.float32(1))(2.0).dtype == np.float64


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_medians_and_histograms_of_nothing():
    for call in (
        lambda x: np.median(x[:0]),
        lambda x: np.median(x[:, :0], axis=1, keepdims=True),
        lambda x: np.histogram(x[:0], 3),
    ):
        for got in (ff.vjp(call, X)[0], ff.jit(call)(X)):
            for a, b in zip(ff.tree.leaves(got), ff.tree.leaves(call(X)), strict=True):
                np.testing.assert_array_equal(a, b, strict=True)


def test_layouts_of_memory_are_not_guessed():
    turned = np.asfortranarray(X)
    for call in (
        lambda x: np.ravel(x, order="K"),
        lambda x: np.reshape(x, 6, order="A"),
        lambda x: x.flatten("A"),
    ):
        with pytest.raises(UnsupportedError, match="how the array lies in memory"):
            ff.vjp(call, turned)
    np.testing.assert_array_equal(ff.vjp(lambda x: x.ravel(order="F"), turned)[0], turned.ravel(order="F"))


@pytest.mark.parametrize("use_jit", [False, True])
@pytest.mark.parametrize("mode", ["rev", "fwd"])
def test_pieces_do_not_hear_of_each_others_domains(use_jit, mode):
    """The derivative of a piece does not exist where another piece is chosen: nothing of it may come through."""

    def f(x):
        y = np.piecewise(x, [x > 0, x <= 0], [np.sqrt, lambda t: -(t**2)])
        return y + np.select([x > 0.1], [x], 0.0)

    x = np.array([0.25, -3.0, 0.0, 4.0])
    jacobian = (ff.jacrev if mode == "rev" else ff.jacfwd)(ff.jit(f) if use_jit else f)(x)
    np.testing.assert_allclose(np.diag(jacobian), [2.0, 6.0, 0.0, 1.25])


def test_what_nan_to_num_replaces_has_no_derivative():
    x = np.array([1.0, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(ff.grad(lambda x: np.sum(2 * np.nan_to_num(x, posinf=3, neginf=4)))(x), [2, 0, 0, 0])
    with pytest.raises(UnsupportedError, match="copy=False"):
        ff.grad(lambda x: np.sum(np.nan_to_num(x, copy=False)))(x)


def test_interpolation_has_the_slopes_of_its_lines():
    xp, fp = np.array([0.0, 1.0, 3.0]), np.array([1.0, 3.0, -1.0])
    slope = ff.vmap(ff.grad(lambda x: np.interp(x, xp, fp)))
    np.testing.assert_allclose(slope(np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0])), [0, 2, 2, -2, -2, -2, 0])
    assert np.isnan(ff.vjp(lambda x: np.interp(x, xp, fp), np.nan)[0])


def test_unwrap_adds_constants():
    x = np.array([0.0, 3.0, 6.5, -0.1, 9.0])
    np.testing.assert_array_equal(ff.jacrev(np.unwrap)(x), np.eye(5))


def test_ramps_of_infinite_elements_keep_to_their_side():
    x = np.array([np.inf, 1.0, 2.0])
    for mode in ("reflect", "symmetric"):
        expected = np.pad(x, (0, 2), mode, reflect_type="odd")
        np.testing.assert_array_equal(ff.vjp(lambda x: np.pad(x, (0, 2), mode, reflect_type="odd"), x)[0], expected)  # noqa: B023


INTEGER_CALLS = {
    "pad mean": lambda x: np.pad(x, 2, "mean", stat_length=2),
    "pad median": lambda x: np.pad(x, 1, "median"),
    "pad ramp": lambda x: np.pad(x, 3, "linear_ramp", end_values=(7, -9)),
    "pad constant": lambda x: np.pad(x, 1, constant_values=(1.7, 2)),
    "pad odd": lambda x: np.pad(x, 2, "reflect", reflect_type="odd"),
    "diff": lambda x: np.diff(x, prepend=0),
    "gradient": lambda x: np.gradient(x, edge_order=2),
    "convolve": lambda x: np.convolve(x, np.array([1, 2, 3], x.dtype)),
    "correlate": lambda x: np.correlate(x, np.array([1, 2], np.int16), "same"),
    "interp": lambda x: np.interp(x, [-5, 0, 6], [1, 2, 3]),
    "unwrap": lambda x: np.unwrap(x, period=5),
    "unwrap even": lambda x: np.unwrap(x, period=4),
    "trapezoid": lambda x: np.trapezoid(x),
    "insert": lambda x: np.insert(x, 1, 2.7),
    "select": lambda x: np.select([x > 0], [x], 0.5),
    "choose": lambda x: np.choose(np.array([0, 1, 1, 0]), [x, 2]),
    "piecewise": lambda x: np.piecewise(x, [x > 0], [lambda t: t / 2, 3.7]),
    "vander": lambda x: np.vander(x, 3),
    "polyval": lambda x: np.polyval(x, 2),
    "polyint": lambda x: np.polyint(x),
    "linspace": lambda x: np.linspace(x, 3, 4, dtype=int),
    "nan_to_num": np.nan_to_num,
    "cross": lambda x: np.cross(x[:3], x[1:]),
    "kron": lambda x: np.kron(x, [1.5]),
    "einsum": lambda x: np.einsum("i,j", x, x),
    "tile": lambda x: np.tile(x, 2),
    "roll": lambda x: np.roll(x, 3),
    "block": lambda x: np.block([x, 1.5]),
}


@pytest.mark.parametrize("dtype", [np.int64, np.int16])
@pytest.mark.parametrize("call", INTEGER_CALLS.values(), ids=INTEGER_CALLS.keys())
def test_integers_are_numpys(call, dtype):
    x = np.array([3, -2, 5, 1], dtype)
    got = ff.jit(call)(x)
    ff.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14, strict=True), got, call(x))


FLOATS = [k for k in INTEGER_CALLS if k not in ("interp", "vander")]


@pytest.mark.parametrize("dtype", [np.float16, np.dtype(">f4"), np.dtype(">f8")])
@pytest.mark.parametrize("name", FLOATS)
def test_other_floats_are_numpys(name, dtype):
    call, x = INTEGER_CALLS[name], np.array([3, -2, 5, 1], dtype)
    out, pull = ff.vjp(call, x)
    expected = call(x)
    assert out.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    np.testing.assert_allclose(out, expected, rtol=2e-3 if x.itemsize == 2 else 1e-6)
    if out.dtype.kind == "f":
        assert pull(np.ones_like(out))[0].dtype.newbyteorder("=") == x.dtype.newbyteorder("=")


def test_views_that_are_not_contiguous_and_read_only_ones_go_in():
    x = np.arange(24.0).reshape(4, 6)[::2, ::-3]
    x.flags.writeable = False
    for call in (np.ravel, np.diff, lambda x: np.pad(x, 1, "reflect"), lambda x: np.tile(x, 2), np.gradient):
        ff.tree.map(np.testing.assert_array_equal, ff.vjp(call, x)[0], call(x))


def test_copies_of_tracers_are_the_tracers():
    assert ff.grad(lambda x: copy.copy(x) * copy.deepcopy({"a": [x]})["a"][0])(3.0) == 6.0


def test_sizes_are_plain_integers():
    def f(x):
        sizes = [*x.shape, *np.shape(x), x.size, np.size(x), np.size(x, 1), x.ndim, np.ndim(x), len(x)]
        assert all(type(n) is int for n in sizes)
        rows = [np.sum(x[i : i + 1]) / x.shape[0] for i in range(x.shape[0])]
        return x.reshape(x.shape[1] * x.shape[0] // 2, -1) * len(rows) + np.stack(rows)[:, None].mean()

    expected = f(X)
    for got in (ff.vjp(f, X)[0], ff.jit(f)(X), ff.vmap(f)(X[None])[0]):
        np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_numpy_answers_what_it_knows_without_values():
    def f(x):
        assert np.result_type(x, np.float32, 1.0) == np.float64
        assert np.can_cast(x, np.float64) and not np.can_cast(x, np.float32)
        assert np.common_type(x) is np.float64
        assert np.isrealobj(x) and not np.iscomplexobj(x)
        path, text = np.einsum_path("ij,kj,kl", x, x, x)
        assert path[0] == "einsum_path" and "ij,kj,kl" in text
        return x

    ff.eval_shape(f, X)
    ff.jvp(f, (X,), (X,))


def test_what_numpy_takes_away_goes_here_with_the_same_release():
    if np.lib.NumpyVersion(np.__version__) >= "2.5.0":
        with pytest.raises(ValueError, match=r"np\.cross: since NumPy 2\.5 vectors must have 3 elements, got 2 and 2"):
            ff.vjp(lambda a: np.cross(a, [1.0, 2.0]), V[:2])
        with pytest.warns(DeprecationWarning, match=r"np\.trunc") as warned:
            ff.vjp(lambda a: np.fix(a), V)
        assert warned[0].filename == __file__
    else:
        with pytest.warns(DeprecationWarning, match="2-dimensional") as warned:
            ff.vjp(lambda a: np.cross(a, [1.0, 2.0]), V[:2])
        assert warned[0].filename == __file__
        ff.vjp(lambda a: np.fix(a), V)
