"""Discrete Fourier transforms.

Arrays go in, of any shape; NumPy's many functions come to three primitives: `fft` of complex numbers along any axes,
`rfft` of real numbers along one, which leaves half of the spectrum, and `irfft`, which makes real numbers of that
half. Lengths are made right before by cutting or by zeros, so that a primitive transforms what it is given. All are
linear. The matrix of `fft` is symmetric, so it is its own transpose; `rfft` and `irfft` are each other's but for
elements of the half that stand for two of the whole. Tangents and cotangents follow JAX's convention, without
conjugates (see `fnflare.ops.complex`).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, primitive
from fnflare.core.batch import shifted
from fnflare.core.tracer import implements
from fnflare.errors import ArgumentError, DtypeError, ShapeError, UnsupportedError
from fnflare.ops.elementwise import convert
from fnflare.ops.shape import concatenate

__all__: list[str] = []

#: How the transposed transform is scaled, which goes the other way.
_SWAPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


@functools.cache
def _spectrum(dtype: Any) -> Any:
    """The dtype of a spectrum: as precise as what was transformed, but for float16."""
    return np.fft.fft(np.zeros(1, dtype)).dtype


def _no_out(name: str, out: Any) -> None:
    if out is not None:
        raise UnsupportedError(f"np.fft.{name}: out= cannot take a tracer; use what the function returns")


# -- the primitives -----------------------------------------------------------------------------


def _fft_kernel(x: Any, *, axes: tuple[int, ...], inverse: bool, norm: Any) -> Any:
    if len(axes) == 1:
        return (np.fft.ifft if inverse else np.fft.fft)(x, axis=axes[0], norm=norm)
    return (np.fft.ifftn if inverse else np.fft.fftn)(x, axes=axes, norm=norm)


def _fft_shape(x: ShapeDtypeStruct, *, axes: tuple[int, ...], inverse: bool, norm: str) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, _spectrum(x.dtype))


_fft = primitive("fft", _fft_kernel, _fft_shape, multilinear=True)
_fft.vjp(lambda ct, _ans, _x, **params: bind(_fft, (ct,), params))
_fft.cost(lambda ans, x, *, axes, **_: sum(5 * ans.size * max(1, x.shape[a].bit_length() - 1) for a in axes))


@_fft.vmap
def _(_size: int, args: Any, dims: Any, *, axes: tuple[int, ...], **params: Any) -> tuple[Any, int]:
    return bind(_fft, args, {"axes": shifted(axes, dims[0]), **params}), dims[0]


def _rfft_kernel(x: Any, *, axis: int, norm: Any) -> Any:
    return np.fft.rfft(x, axis=axis, norm=norm)


def _rfft_shape(x: ShapeDtypeStruct, *, axis: int, norm: str) -> ShapeDtypeStruct:
    shape = (*x.shape[:axis], x.shape[axis] // 2 + 1, *x.shape[axis + 1 :])
    return ShapeDtypeStruct(shape, _spectrum(x.dtype))


def _irfft_kernel(x: Any, *, n: int, axis: int, norm: Any) -> Any:
    return np.fft.irfft(x, n, axis, norm)


def _irfft_shape(x: ShapeDtypeStruct, *, n: int, axis: int, norm: str) -> ShapeDtypeStruct:
    shape = (*x.shape[:axis], n, *x.shape[axis + 1 :])
    return ShapeDtypeStruct(shape, np.zeros((), _spectrum(x.dtype)).real.dtype)


#: Of real numbers along one axis.
_rfft = primitive("rfft", _rfft_kernel, _rfft_shape, multilinear=True)
#: To `n` real numbers along one axis, of ``n // 2 + 1`` complex ones.
_irfft = primitive("irfft", _irfft_kernel, _irfft_shape, multilinear=True)


def _counts(x: Any, n: int, axis: int) -> Any:
    """How many elements of a whole spectrum of length `n` each element of its half `x` stands for."""
    counts = np.full(n // 2 + 1, 2, x.real.dtype)
    counts[0] = 1
    if n % 2 == 0:
        counts[-1] = 1
    return counts.reshape(-1, *[1] * (x.ndim - axis - 1))


@_rfft.vjp
def _(ct: Any, _ans: Any, x_like: Any, *, axis: int, norm: str) -> Any:
    n = x_like.shape[axis]
    half = np.conjugate(ct) / _counts(ct, n, axis)
    return bind(_irfft, (half,), {"n": n, "axis": axis, "norm": _SWAPPED[norm]})


@_irfft.vjp
def _(ct: Any, _ans: Any, _x: Any, *, n: int, axis: int, norm: str) -> Any:
    half = bind(_rfft, (ct,), {"axis": axis, "norm": _SWAPPED[norm]})
    return np.conjugate(half) * _counts(half, n, axis)


for _prim in (_rfft, _irfft):
    _prim.vmap(
        lambda _size, args, dims, *, axis, _prim=_prim, **params: (
            bind(_prim, args, {"axis": shifted((axis,), dims[0])[0], **params}),
            dims[0],
        )
    )
_rfft.cost(lambda ans, x, *, axis, **_: 5 * ans.size * max(1, x.shape[axis].bit_length() - 1))
_irfft.cost(lambda ans, x, *, n, **_: 5 * x.size * max(1, n.bit_length() - 1))

# -- arguments ----------------------------------------------------------------------------------


def _norm_of(norm: Any) -> str:
    norm = "backward" if norm is None else norm
    if norm not in _SWAPPED:
        raise ArgumentError(f"np.fft: norm={norm!r} is none of 'backward', 'ortho' and 'forward'")
    return str(norm)


def _array(name: str, a: Any) -> Any:
    a = a if hasattr(a, "dtype") else np.asarray(a)
    if a.ndim == 0:
        raise ShapeError(f"np.fft.{name}: an array with at least one axis is needed")
    return a


def _real_array(name: str, a: Any) -> Any:
    a = _array(name, a)
    if a.dtype.kind == "c":
        raise DtypeError(f"np.fft.{name}: real numbers are needed, got dtype {a.dtype}; write np.fft.fft, or a.real")
    return a


def _axis(a: Any, axis: Any) -> int:
    if not -a.ndim <= axis < a.ndim:
        raise np.exceptions.AxisError(axis, a.ndim)
    return int(axis) % int(a.ndim)


def _axes_and_lengths(name: str, a: Any, s: Any, axes: Any) -> tuple[list[int], list[int | None]]:
    """NumPy's `axes` and `s`: which axes, from 0, and how long each is to be, None for as long as it is."""
    if axes is None:
        axes = range(a.ndim) if s is None else range(-len(s), 0)
    where = [_axis(a, x) for x in axes]
    lengths: list[int | None] = (
        [None] * len(where) if s is None else [None if n is None or n == -1 else int(n) for n in s]
    )
    if len(lengths) != len(where):
        raise ShapeError(f"np.fft.{name}: s={s} has not as many elements as axes={tuple(axes)}")
    return where, lengths


def _resized(name: str, a: Any, n: int | None, axis: int) -> Any:
    """`a` with `n` elements along an axis: the first ones, or all and zeros."""
    have = a.shape[axis]
    n = have if n is None else n
    if n < 1:
        raise ShapeError(f"np.fft.{name}: the number of points along axis {axis} must be positive, got {n}")
    if n == have:
        return a
    if n < have:
        return a[(*[slice(None)] * axis, slice(n))]
    zeros = np.zeros((*a.shape[:axis], n - have, *a.shape[axis + 1 :]), a.dtype)
    return concatenate([a, zeros], axis)


# -- complex transforms -------------------------------------------------------------------------


def _complex_transform(name: str, a: Any, s: Any, axes: Any, norm: Any, out: Any, inverse: bool) -> Any:
    _no_out(name, out)
    a = _array(name, a)
    where, lengths = _axes_and_lengths(name, a, s, axes)
    params = {"inverse": inverse, "norm": _norm_of(norm)}
    if len(set(where)) == len(where):
        for axis, n in zip(where, lengths, strict=True):
            a = _resized(name, a, n, axis)
        if not where:
            return a
        return bind(_fft, (a,), {"axes": tuple(where), **params})
    for axis, n in zip(reversed(where), reversed(lengths), strict=True):  # an axis that is named twice: in turns
        a = bind(_fft, (_resized(name, a, n, axis),), {"axes": (axis,), **params})
    return a


@implements(np.fft.fft)
def fft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.fft``."""
    return _complex_transform("fft", a, (n,), (axis,), norm, out, False)


@implements(np.fft.ifft)
def ifft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.ifft``."""
    return _complex_transform("ifft", a, (n,), (axis,), norm, out, True)


@implements(np.fft.fftn)
def fftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.fftn``."""
    return _complex_transform("fftn", a, s, axes, norm, out, False)


@implements(np.fft.ifftn)
def ifftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.ifftn``."""
    return _complex_transform("ifftn", a, s, axes, norm, out, True)


@implements(np.fft.fft2)
def fft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.fft2``."""
    return _complex_transform("fft2", a, s, axes, norm, out, False)


@implements(np.fft.ifft2)
def ifft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.ifft2``."""
    return _complex_transform("ifft2", a, s, axes, norm, out, True)


# -- real transforms ----------------------------------------------------------------------------


def _from_real(name: str, a: Any, s: Any, axes: Any, norm: Any, out: Any) -> Any:
    """The real transform along the last of the axes, complex ones along the others."""
    _no_out(name, out)
    a = _real_array(name, a)
    where, lengths = _axes_and_lengths(name, a, s, axes)
    *others, last = where
    *other_lengths, n = lengths
    a = _resized(name, a, n, last)
    half = bind(_rfft, (a,), {"axis": last, "norm": _norm_of(norm)})
    return _complex_transform(name, half, other_lengths, others, norm, None, False) if others else half


def _to_real(name: str, a: Any, s: Any, axes: Any, norm: Any, out: Any) -> Any:
    """Complex transforms along all axes but the last, the real one along that, to 2 (m - 1) elements from m."""
    _no_out(name, out)
    a = _array(name, a)
    where, lengths = _axes_and_lengths(name, a, s, axes)
    *others, last = where
    *other_lengths, n = lengths
    if n is None:
        n = 2 * (a.shape[last] - 1)
    if n < 1:
        raise ShapeError(f"np.fft.{name}: the number of points along axis {last} must be positive, got {n}")
    if others:
        a = _complex_transform(name, a, other_lengths, others, norm, None, True)
    half = convert(_resized(name, a, n // 2 + 1, last), _spectrum(a.dtype))
    out = bind(_irfft, (half,), {"n": n, "axis": last, "norm": _norm_of(norm)})
    return convert(out, np.float16) if a.dtype == np.float16 else out


@implements(np.fft.rfft)
def rfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.rfft``."""
    return _from_real("rfft", a, (n,), (axis,), norm, out)


@implements(np.fft.irfft)
def irfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.irfft``; imaginary parts that a real answer has no use for have derivative zero."""
    return _to_real("irfft", a, (n,), (axis,), norm, out)


@implements(np.fft.rfftn)
def rfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.rfftn``."""
    return _from_real("rfftn", a, s, axes, norm, out)


@implements(np.fft.irfftn)
def irfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.irfftn``."""
    return _to_real("irfftn", a, s, axes, norm, out)


@implements(np.fft.rfft2)
def rfft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.rfft2``."""
    return _from_real("rfft2", a, s, axes, norm, out)


@implements(np.fft.irfft2)
def irfft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.irfft2``."""
    return _to_real("irfft2", a, s, axes, norm, out)


@implements(np.fft.hfft)
def hfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.hfft``."""
    return _to_real("hfft", np.conjugate(a), (n,), (axis,), _SWAPPED[_norm_of(norm)], out)


@implements(np.fft.ihfft)
def ihfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """NumPy's ``fft.ihfft``."""
    return np.conjugate(_from_real("ihfft", a, (n,), (axis,), _SWAPPED[_norm_of(norm)], out))


# -- order --------------------------------------------------------------------------------------


def _rolled(x: Any, axes: Any, by: Any) -> Any:
    where = range(x.ndim) if axes is None else axes if isinstance(axes, (tuple, list)) else (axes,)
    where = [_axis(x, a) for a in where]
    return np.roll(x, [by(x.shape[a]) for a in where], where)


@implements(np.fft.fftshift)
def fftshift(x: Any, axes: Any = None) -> Any:
    """NumPy's ``fft.fftshift``."""
    return _rolled(x, axes, lambda n: n // 2)


@implements(np.fft.ifftshift)
def ifftshift(x: Any, axes: Any = None) -> Any:
    """NumPy's ``fft.ifftshift``."""
    return _rolled(x, axes, lambda n: -(n // 2))
