"""What the tests of the core share: a function of NumPy code against NumPy itself, in value, dtype and derivative."""

import numpy as np

import fnflare as ff
from fnflare import tree
from fnflare.testing import check_grads, check_vmap, random_like


def is_double(a):
    return isinstance(a, (np.ndarray, np.generic)) and a.dtype in (np.float64, np.complex128)


def in_dtype(args, dtype):
    """A tree with its float64 arrays in another dtype, and the complex ones in that of such parts; Python numbers and
    other leaves stay."""

    def cast(a):
        return a.astype(np.result_type(dtype, np.complex64) if a.dtype.kind == "c" else dtype)

    return tree.map(lambda a: cast(a) if is_double(a) else a, args)


def described(x):
    """Shapes and dtypes of a tree, comparable."""
    return tree.map(lambda a: (np.shape(a), np.asarray(a).dtype.str), x)


def close(got, expected, rtol=1e-12, atol=1e-13):
    """Two trees agree in structure, shapes, dtypes and, to rounding, in values."""
    assert tree.structure(got) == tree.structure(expected)
    assert described(got) == described(expected)
    for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def agree(got, expected):
    """Two trees agree as `close` has it, but for float32, in which the functions of native code and NumPy's may each
    be some units in the last place away from the true value."""
    assert tree.structure(got) == tree.structure(expected)
    for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        single = np.asarray(a).dtype in (np.float32, np.complex64)
        close(a, b, **({"rtol": 1e-6, "atol": 1e-6} if single else {}))


def same_as_numpy(f, *args, order=2, foretold=True, vmap=True):
    """`f` on tracers gives NumPy's values, shapes and dtypes, in float64 and float32; `eval_shape` foretells them if
    they are to be `foretold`; gradients have the dtypes of the arguments and are right to the given order; `vmap`
    gives the stack."""
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        xs = in_dtype(args, dtype)
        expected = f(*xs)
        out, pull = ff.vjp(f, *xs)
        out_forward, tangent = ff.jvp(f, xs, random_like(xs))
        for got in (out, out_forward):
            assert described(got) == described(expected)
            for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        if foretold:
            assert tree.map(lambda a: (a.shape, a.dtype.str), ff.eval_shape(f, *xs)) == described(expected)
        assert described(tangent) == described(random_like(out))
        assert described(pull(random_like(out))) == described(random_like(xs))
    if order:
        check_grads(f, args, order)
    if not vmap:
        return
    axes = tree.map(lambda a: 0 if is_double(a) else None, args)
    check_vmap(f, tree.map(lambda a: np.stack([a, 0.9 * a, a]) if is_double(a) else a, args), axes)
