"""Derivatives of functions of complex numbers against JAX, whose convention they follow."""

import numpy as np
import pytest
from drawing import Draws
from laws import in_dtype

import fnflare as ff
from fnflare.testing import random_like

jax = pytest.importorskip("jax")
jnp = jax.numpy

RNG = Draws(11)


def numbers(*shape):
    return RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)


Z, W = numbers(4), numbers(4)
X = RNG.uniform(0.5, 1.5, 4)
A = numbers(3, 3) + 2 * np.eye(3)
TALL = numbers(4, 2)
REAL = RNG.standard_normal((3, 3))
HERMITIAN = A @ A.conj().T + np.eye(3)

#: Without arccosh, whose derivative has the wrong sign in JAX left of the imaginary axis, and without sign, which has
#: none there.
HOLOMORPHIC = [
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "square", "reciprocal", "negative", "sin", "cos",
    "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "arcsinh", "arctanh",
]  # fmt: skip


def adjoint(m, x):
    return m.conj(m.swapaxes(x, -1, -2))


def positive(m, x):
    return x @ adjoint(m, x) + m.eye(x.shape[-1], dtype=x.dtype)


def size(m, x):
    """A real number made of any complex ones, in which no two are alike."""
    weights = np.arange(1, x.size + 1).reshape(x.shape).astype(np.zeros((), x.dtype).real.dtype)
    return m.sum(m.real(x) * weights) + m.sum(m.imag(x) * weights * weights / x.size)


#: Real functions of complex arguments: of each, what both modules compute.
FUNCTIONS = {
    **{name: (lambda m, z, name=name: size(m, getattr(m, name)(z)), (Z,)) for name in HOLOMORPHIC},
    "abs": (lambda m, z: m.sum(m.abs(z) ** 3), (Z,)),
    "angle": (lambda m, z: m.sum(m.angle(z) * X), (Z,)),
    "conj": (lambda m, z: size(m, m.conj(z) * z * z), (Z,)),
    "parts": (lambda m, z: m.sum(m.real(z) * m.imag(z) ** 2), (Z,)),
    "power": (lambda m, z, w: size(m, z**w), (Z, W)),
    "powers": (lambda m, z, x: size(m, z**3 + z**-0.5 + z**x + 2.0**z + x**z), (Z, X)),
    "mixed": (lambda m, z, x: size(m, z * x + x / z - (x - z) * 2j), (Z, X)),
    "where": (lambda m, z, x: size(m, m.where(X > 1, z, x)), (Z, X)),
    "concatenate": (lambda m, z, x: size(m, m.concatenate([z, x]) ** 2), (Z, X)),
    "cumprod": (lambda m, z: size(m, m.cumsum(z) * m.prod(z)), (Z,)),
    "vdot": (lambda m, z, w: m.abs(m.vdot(z, w)), (Z, W)),
    "matmul": (lambda m, a, b: size(m, a @ b @ a), (A, REAL)),
    "einsum": (lambda m, a, b: size(m, m.einsum("ij,jk,ii->k", a, b, a)), (A, REAL)),
    "inv": (lambda m, a: size(m, m.linalg.inv(a)), (A,)),
    "solve": (lambda m, a, b: size(m, m.linalg.solve(a, b)), (A, numbers(3, 2))),
    "det": (lambda m, a: size(m, m.linalg.det(a)[None]), (A,)),
    "slogdet": (lambda m, a: m.linalg.slogdet(a)[1] + m.real(m.linalg.slogdet(a)[0]), (A,)),
    "pinv": (lambda m, a: size(m, m.linalg.pinv(a)), (TALL,)),
    "cholesky": (lambda m, a: size(m, m.linalg.cholesky(positive(m, a))), (A,)),
    # Along directions that are not Hermitian: both take them to the Hermitian ones.
    "cholesky of a Hermitian matrix": (lambda m, a: size(m, m.linalg.cholesky(a)), (HERMITIAN,)),
    "eigh of a Hermitian matrix": (lambda m, a: projected(m, *m.linalg.eigh(a)), (HERMITIAN,)),
    "qr": (lambda m, a: size(m, m.linalg.qr(a)[1]) + size(m, m.linalg.qr(a)[0]), (TALL,)),
    "eigh": (lambda m, a: projected(m, *m.linalg.eigh(a + adjoint(m, a))), (A,)),
    "eigvalsh": (lambda m, a: m.sum(m.linalg.eigvalsh(a + adjoint(m, a)) ** 3), (A,)),
    "svd": (lambda m, a: decomposed(m, *m.linalg.svd(a, full_matrices=False)), (TALL,)),
    "svdvals": (lambda m, a: m.sum(m.linalg.svd(a, compute_uv=False) ** 3), (TALL,)),
    "eigvals": (lambda m, a: m.sum(m.abs(m.linalg.eigvals(a)) ** 3), (REAL,)),
    "norm": (lambda m, a: m.linalg.norm(a) + m.linalg.norm(a, "nuc") + m.linalg.norm(a, 1), (A,)),
    "fft": (lambda m, z: size(m, m.fft.fft(z, 6)), (Z,)),
    "ifft": (lambda m, a: size(m, m.fft.ifftn(a, norm="ortho")), (A,)),
    "rfft": (lambda m, x: size(m, m.fft.rfft(x, 5)), (X,)),
    "irfft": (lambda m, z: m.sum(m.fft.irfft(z, 7) ** 3), (Z,)),
    "irfft2": (lambda m, a: m.sum(m.fft.irfft2(a, norm="forward") ** 3), (A,)),
    "hfft": (lambda m, z: m.sum(m.fft.hfft(z) ** 3), (Z,)),
    "ihfft": (lambda m, x: size(m, m.fft.ihfft(x)), (X,)),
}


def projected(m, w, v):
    return m.sum(w**2) + size(m, (v * np.arange(1, 4, dtype=w.dtype)) @ adjoint(m, v))


def decomposed(m, u, s, vh):
    return m.sum(s**2) + size(m, (u * np.arange(1, 3, dtype=s.dtype)) @ vh)


def inputs(name):
    """The arguments of a function, and a direction."""
    args = FUNCTIONS[name][1]
    return args, random_like(args)


@pytest.fixture(scope="module", autouse=True)
def _double_precision():
    was = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", was)


@pytest.fixture(scope="module")
def theirs(_double_precision):
    """Gradients of all functions and derivatives along a direction by JAX, in one program and compiled without haste
    of the code: one by one and with all optimisations they would take minutes."""

    def derivatives(name, args, t):
        def f(*xs):
            return FUNCTIONS[name][0](jnp, *xs)

        return jax.grad(f, tuple(range(len(args))))(*args), jax.jvp(f, args, t)[1]

    def all_of_them(given):
        return {name: derivatives(name, *a) for name, a in given.items()}

    given = {name: inputs(name) for name in FUNCTIONS}
    fast = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(all_of_them).lower(given).compile(fast)(given)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_and_tangents(name, dtype, theirs):
    gradients, tangent = theirs[name]
    args, t = in_dtype(inputs(name), dtype)
    rtol = 1e-9 if dtype is np.float64 else 5e-3

    def f(*xs):
        return FUNCTIONS[name][0](np, *xs)

    ours = ff.grad(f, tuple(range(len(args))))(*args)
    for x, a, b in zip(args, ours, gradients, strict=True):
        assert a.dtype == x.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.max(np.abs(b)))
    largest = max([np.max(np.abs(g)) for g in gradients])
    np.testing.assert_allclose(ff.jvp(f, args, t)[1], tangent, rtol=rtol, atol=rtol * largest)


def test_holomorphic_functions():
    def f(m):
        return lambda z: m.cumsum(m.sin(z * z))

    def total(m):
        return lambda z: m.sum(f(m)(z))

    for transform, of in (("grad", total), ("jacrev", f), ("jacfwd", f), ("hessian", total)):
        ours = getattr(ff, transform)(of(np), holomorphic=True)(Z)
        np.testing.assert_allclose(ours, jax.jit(getattr(jax, transform)(of(jnp), holomorphic=True))(Z), rtol=1e-10)


def test_jacobians():
    ours = ff.jacrev(lambda z: np.abs(z) ** 2)(Z)
    np.testing.assert_allclose(ours, jax.jit(jax.jacrev(lambda z: jnp.abs(z) ** 2))(Z), rtol=1e-12)
    ours = ff.jacfwd(lambda x: np.exp(1j * x))(X)
    np.testing.assert_allclose(ours, jax.jit(jax.jacfwd(lambda x: jnp.exp(1j * x)))(X), rtol=1e-12)


def test_pullbacks_of_complex_answers():
    ours = ff.vjp(lambda z, x: np.exp(z * x) * np.conj(z), Z, X)[1](W)
    theirs = jax.vjp(lambda z, x: jnp.exp(z * x) * jnp.conj(z), Z, X)[1](W)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda m: m.grad(lambda z: z * z), 1j),
        (lambda m: m.jacrev(lambda z: z * z), 1j),
        (lambda m: m.jacfwd(lambda z: z * z), 1j),
        (lambda m: m.hessian(lambda z: z * z), 1j),
        (lambda m: m.grad(lambda z: z * 1.0, holomorphic=True), 1.0),
        (lambda m: m.grad(lambda z: abs(z), holomorphic=True), 1j),
        (lambda m: m.jacfwd(lambda z: abs(z), holomorphic=True), 1j),
    ],
)
def test_what_is_refused(call, argument):
    for module in (jax, ff):
        with pytest.raises(TypeError, match="holomorphic"):
            call(module)(np.asarray(argument)[()])
