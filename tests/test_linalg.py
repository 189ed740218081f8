"""Linear algebra and Fourier transforms beyond the cases of tests/surface: ties, zeros, third derivatives, wrong
arguments, and the laws that transforms keep."""

import numpy as np
import pytest
from drawing import Draws
from hypothesis import given
from hypothesis import strategies as st
from vmap_laws import operations

import fnflare as ff
from fnflare.core import primitives
from fnflare.errors import ArgumentError, DtypeError, FnflareError, ShapeError, UnsupportedError
from fnflare.ops import determinant
from fnflare.testing import check_grads, check_vmap

la = np.linalg
RNG = Draws(5)


def normal(*shape):
    return RNG.standard_normal(shape)


# -- where derivatives are hard -----------------------------------------------------------------


@pytest.mark.parametrize("order", [None, "fro", "nuc", 1, 2, np.inf])
def test_norms_of_zeros_have_finite_derivatives(order):
    for shape, axis in (((2, 3), None), ((2, 2, 3), (1, 2))):
        gradient = ff.grad(lambda x, axis=axis: np.sum(la.norm(x, order, axis)))(np.zeros(shape))
        assert np.all(np.abs(gradient) <= 1)


@pytest.mark.parametrize("order", [None, 0, 1, 1.5, 2, 3, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_norms_of_zero_vectors_have_derivative_zero(order, dtype):
    for x in (np.zeros(3, dtype), np.array([0, 0.5, -2.0], dtype)):
        gradient = ff.grad(lambda x: la.norm(x, order))(x)
        assert np.all(np.isfinite(gradient))
        assert gradient[0] == 0 or order == -np.inf
        if order != -np.inf:
            assert np.all(np.isfinite(ff.jvp(ff.grad(lambda x: la.norm(x, order)), (x,), (np.ones_like(x),))[1]))


def test_the_largest_singular_value_shares_a_tie():
    # Both singular values are 1: the gradient of the 2-norm is half of each, that of the nuclear norm the whole.
    np.testing.assert_allclose(ff.grad(lambda x: la.norm(x, 2))(np.eye(2)), np.eye(2) / 2, atol=1e-15)
    np.testing.assert_allclose(ff.grad(lambda x: la.norm(x, "nuc"))(np.eye(2)), np.eye(2), atol=1e-15)


def test_values_have_derivatives_where_vectors_have_none():
    x, t = np.diag([1.0, 1.0, 2.0]), normal(3, 3)
    _, tangent = ff.jvp(lambda a: np.sum(la.eigvalsh(a) ** 3), (x,), (t,))
    np.testing.assert_allclose(tangent, np.sum(3 * x @ x * t), rtol=1e-12)
    for f in (lambda a: np.sum(la.eigvalsh(a) ** 3), lambda a: np.sum(la.eigh(a).eigenvalues ** 3)):
        np.testing.assert_allclose(ff.grad(f)(x), 3 * x @ x, atol=1e-12)
    for f in (lambda a: np.sum(la.svdvals(a) ** 2), lambda a: np.sum(la.svd(a)[1] ** 2)):
        np.testing.assert_allclose(ff.grad(f)(x), 2 * x, atol=1e-12)


def test_a_function_that_does_not_tell_equal_values_apart_has_a_gradient():
    def trace_of_cube(a):  # through the vectors
        w, v = la.eigh(a)
        return np.trace((v * w**3) @ v.T)

    np.testing.assert_allclose(ff.grad(trace_of_cube)(np.eye(3)), 3 * np.eye(3), atol=1e-12)


def test_gradients_of_functions_of_hermitian_matrices_are_hermitian():
    a = normal(3, 3)
    a = a @ a.T + np.eye(3)
    for f in (la.cholesky, lambda x: la.eigh(x)[1], la.eigvalsh, lambda x: la.pinv(x, hermitian=True)):
        g = ff.grad(lambda x, f=f: np.sum(f(x) * np.arange(1, f(a).size + 1).reshape(f(a).shape)))(a)
        np.testing.assert_allclose(g, g.T, atol=1e-13)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_determinants_of_any_rank(rank, seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((3, rank)) @ rng.standard_normal((rank, 3))
    check_grads(la.det, (a,), order=2)
    if rank == 3:
        check_grads(lambda x: ff.jvp(la.det, (x,), (x.T,))[1], (a,), order=3)
    else:
        third = ff.grad(lambda x: np.sum(ff.grad(lambda y: np.sum(ff.grad(la.det)(y) ** 2))(x)))
        with pytest.raises(la.LinAlgError, match="are for regular matrices"):
            third(a)


def test_the_gradient_of_log_det_is_the_inverse():
    a = normal(4, 4)
    np.testing.assert_allclose(ff.grad(lambda x: la.slogdet(x)[1])(a), la.inv(a).T, rtol=1e-9)
    with pytest.raises(la.LinAlgError):
        ff.grad(lambda x: la.slogdet(x)[1])(np.zeros((2, 2)))


def test_eigenvectors_keep_length_and_phase():
    a = normal(4, 4)
    w, v = la.eig(a)
    assert np.iscomplexobj(w)
    _, (_, t) = ff.jvp(lambda x: tuple(la.eig(x)), (a,), (normal(4, 4),))
    np.testing.assert_allclose(np.sum(v.conj() * t, axis=0).real, 0, atol=1e-12)
    largest = np.argmax(np.abs(v), axis=0)
    np.testing.assert_allclose(t[largest, range(4)].imag, 0, atol=1e-12)


def test_eigenvalues_are_complex_whatever_they_are():
    x = np.diag([1.0, 2.0])
    for f in (la.eigvals, lambda a: la.eig(a).eigenvalues):
        assert ff.jit(f)(x).dtype == ff.vjp(f, x)[0].dtype == ff.eval_shape(f, x).dtype == np.complex128
        assert ff.jit(f)(x.astype(np.float32)).dtype == np.complex64
    np.testing.assert_allclose(ff.grad(lambda a: np.sum(la.eigvals(a).real ** 2))(x), 2 * x)


def test_condition_numbers_of_singular_matrices_are_infinite():
    singular = np.stack([np.eye(2), np.ones((2, 2))])
    for p in (1, "fro", np.inf):
        np.testing.assert_array_equal(ff.jit(lambda x, p=p: la.cond(x, p))(singular), la.cond(singular, p))


def test_decompositions_of_float32_and_integers():
    x = normal(3, 3).astype(np.float32)
    for f in (la.inv, la.det, lambda a: la.qr(a).R, lambda a: la.svd(a)[0], lambda a: la.eigh(a)[1], la.norm):
        assert ff.vjp(f, x)[0].dtype == np.float32
    integers = np.array([[2, 1], [1, 3]])
    for f in (la.inv, la.det, la.norm, la.svdvals, la.eigvalsh, lambda a: la.solve(a, np.ones(2, int))):
        out = ff.jit(f)(integers)
        assert out.dtype == np.float64
        np.testing.assert_allclose(out, f(integers), rtol=1e-12)


def test_the_rank_decides_the_shape_of_residuals():
    a, b = np.outer(normal(4), normal(2)), normal(4)
    assert ff.vjp(lambda a: la.lstsq(a, b)[1], a)[0].shape == la.lstsq(a, b)[1].shape == (0,)
    assert ff.eval_shape(lambda a: la.lstsq(a, b)[1], a).shape == (1,)


def test_matrices_without_elements():
    for f, shape in (
        (la.eig, (0, 0)),
        (la.eigh, (0, 2, 2)),
        (la.svd, (0, 0)),
        (la.qr, (3, 0)),
        (la.slogdet, (0, 2, 2)),
    ):
        x = np.zeros(shape)
        out, pull = ff.vjp(lambda a, f=f: list(f(a)), x)
        assert [np.shape(a) for a in out] == [np.shape(a) for a in f(x)]
        assert pull(out)[0].shape == shape
        assert [np.shape(a) for a in ff.jvp(lambda a, f=f: list(f(a)), (x,), (x,))[1]] == [np.shape(a) for a in out]


@pytest.mark.parametrize(
    ("f", "error"),
    [
        (lambda x: la.inv(x), ShapeError),
        (lambda x: la.solve(x[:, :2], x.T), ShapeError),
        (lambda x: la.det(x[0]), ShapeError),
        (lambda x: la.eigh(x[:2, :2], "X"), ArgumentError),
        (lambda x: la.norm(x, "nuclear"), ArgumentError),
        (lambda x: la.norm(x[0], "fro"), ArgumentError),
        (lambda x: la.norm(x[None]), None),
        (lambda x: la.norm(x[None], 2), ShapeError),
        (lambda x: la.inv(x[:2, :2].astype(np.float16)), DtypeError),
        (lambda x: la.pinv(x, 1e-3, rtol=1e-3), ArgumentError),
        (lambda x: la.matrix_rank(x, 1e-3, rtol=1e-3), ArgumentError),
        (lambda x: la.lstsq(x[None], x), ShapeError),
        (lambda x: la.tensorinv(x, 0), ArgumentError),
        (lambda x: la.tensorsolve(x, x[0]), ShapeError),
        (lambda x: la.multi_dot([x]), ArgumentError),
        (lambda x: la.multi_dot([x, x]), ShapeError),
        (lambda x: la.cross(x, x[0, :2]), ShapeError),
        (lambda x: la.outer(x, x), ShapeError),
        (lambda x: la.qr(x, "raw"), UnsupportedError),
        (lambda x: np.fft.fft(x, 0), ShapeError),
        (lambda x: np.fft.fft(x, norm="orthogonal"), ArgumentError),
        (lambda x: np.fft.rfft(x + 1j), DtypeError),
        (lambda x: np.fft.fftn(x, (2,), (0, 1)), ShapeError),
        (lambda x: np.fft.ifft(x[0, 0]), ShapeError),
        (lambda x: np.fft.irfft(x[:, :1]), ShapeError),
    ],
)
def test_wrong_arguments_are_named(f, error):
    x = normal(2, 3)
    for run in (lambda: ff.vjp(f, x), lambda: ff.eval_shape(f, x)):
        if error is None:
            run()
        else:
            with pytest.raises(error) as caught:
                run()
            assert isinstance(caught.value, FnflareError)
            assert "np." in str(caught.value)


# -- laws ---------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.randoms(use_true_random=False))
def test_pseudoinverses_solve_and_are_batched(m, n, axis, random):
    rng = np.random.default_rng(random.randrange(1 << 30))
    a = rng.standard_normal((m, n))
    check_grads(lambda x: la.pinv(x) @ np.ones(m), (a + 2 * np.eye(m, n),), order=1)
    stacked = np.stack([a + 2 * np.eye(m, n)] * 2, axis=axis)
    check_vmap(la.pinv, (stacked,), axis)


@given(
    st.sampled_from(["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]),
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(2, 7)),
    st.sampled_from([None, "ortho", "forward", "backward"]),
    st.integers(0, 2),
)
def test_transforms_are_linear_and_batched(name, length, n, norm, axis):
    if name in ("irfft", "hfft") and n is None:
        length += 1
    x = normal(length)
    if name not in ("rfft", "ihfft"):
        x = x + 1j * normal(length)

    def f(x):
        return getattr(np.fft, name)(x, n, norm=norm)

    check_grads(f, (x,), order=1)
    np.testing.assert_allclose(ff.jvp(f, (x * 0,), (x,))[1], f(x), rtol=1e-12, atol=1e-13)
    check_vmap(lambda x: f(x.T).T, (np.stack([np.stack([x, x * 2]).T] * 3, axis=axis),), axis)


def test_a_matrix_that_all_examples_share_is_factored_once():
    a, b = normal(3, 3) + 2 * np.eye(3), normal(4, 3)
    solves = [op for op in operations(ff.vmap(la.solve, (None, 0)), a, b) if op[0] == "solve"]
    assert solves == [("solve", (3, 3), (3, 4))]
    for axis in (0, 1, 2, 3):
        check_vmap(la.solve, (normal(2, 2, 2) + 3 * np.eye(2), normal(*np.insert([2, 2, 3], axis, 4))), (None, axis))
        check_vmap(la.solve, (normal(2, 2) + 3 * np.eye(2), normal(*np.insert([2, 2, 3], axis, 4))), (None, axis))


@given(st.integers(0, 5), st.integers(0, 3))
def test_products_without_one_and_two(n, zeros):
    s = np.sort(RNG.uniform(0.5, 2, (2, n)))[:, ::-1].copy()
    s[0, max(0, n - zeros) :] = 0
    one, two = determinant._without_one(s), determinant._without_two(s)
    for k, i, j in np.ndindex(2, n, n):
        np.testing.assert_allclose(one[k, i], np.prod(np.delete(s[k], i)), rtol=1e-13)
        np.testing.assert_allclose(two[k, i, j], np.prod(np.delete(s[k], [i, j])) if i != j else 0, rtol=1e-13)


def test_a_transform_of_a_batch_is_one_transform():
    program = ff.make_program(ff.vmap(np.fft.fft2, in_axes=1))(normal(4, 3, 5))
    assert str(program).count("= fft[") == 1


@pytest.mark.parametrize("name", ["slogdet", "qr", "eigh", "eig", "svd"])
def test_operations_with_several_answers_foretell_them(name):
    params = {"uplo": "L"} if name == "eigh" else {}
    for dtype in (np.float32, np.float64, np.complex64, np.complex128):
        for shape in ((2, 2), (3, 2, 2)):
            x = (normal(*shape) + 2 * np.eye(2)).astype(dtype)
            prim = primitives()[name]
            foretold = prim.shape(ff.eval_shape(lambda a: a, x), **params)
            for a, b in zip(foretold, prim.kernel(x, **params), strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_linearize_and_jit_of_gradients():
    def loss(a, b):
        q, r = la.qr(a)
        w, v = la.eigh(a.T @ a)
        u, s, vh = la.svd(a, full_matrices=False)
        spectrum = np.fft.rfft(la.solve(a[:2], b), axis=0)
        return np.sum(np.sin(q @ r) * w) + np.sum((v * s) ** 2 + u[:2] * vh) + np.sum(np.abs(spectrum) ** 2) + la.det(r)

    a, b = normal(3, 2), normal(2)
    expected = ff.grad(loss, (0, 1))(a, b)
    for native in (False, True):
        with ff.config.override(use_native=native):
            for x, y in zip(ff.jit(ff.grad(loss, (0, 1)))(a, b), expected, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)
    _, push = ff.linearize(loss, a, b)
    t = normal(3, 2), normal(2)
    np.testing.assert_allclose(push(*t), ff.jvp(loss, (a, b), t)[1], rtol=1e-12)
    np.testing.assert_allclose(push(*t), np.sum(expected[0] * t[0]) + np.sum(expected[1] * t[1]), rtol=1e-9)
