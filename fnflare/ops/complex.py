"""Complex numbers: parts, conjugates, phases, and the tests of NumPy that tell them from real ones.

Tracers go in; parts and conjugates are primitives, all else is made of them. The derivatives of functions of complex
numbers are JAX's. A tangent is pushed forward as the real direction that it is. A cotangent u of an output and the
cotangent v that it gives of an input are matched by ``Re(sum(u * df)) = Re(sum(v * dx))`` for every direction dx,
without a conjugate. Three things follow:

- Of a holomorphic function a cotangent is multiplied by f'(x), whichever way, as in real calculus; rules of
  operations that are holomorphic need no word about complex numbers.
- The gradient of a real function of ``x = a + ib`` is ``df/da - i df/db``: the conjugate of the direction of steepest
  ascent. A step of gradient descent is ``x - rate * grad.conj()``.
- The cotangent of a real argument, which took part as a complex number, is the real part.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, dtype_of, primitive
from fnflare.core.batch import in_place
from fnflare.core.tracer import UFUNC_FUNCTIONS, UFUNCS, implements
from fnflare.ops.elementwise import convert, primitive_of

__all__ = ["conjugate", "imag", "real"]


def _part_shape(x: ShapeDtypeStruct) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, np.zeros((), x.dtype).real.dtype)


_real = primitive("real", lambda x: x.real, _part_shape)
_real.vjp(lambda ct, _ans, x_like: convert(ct, x_like.dtype))
_real.jvp(lambda t, _ans, _x: np.real(t))
in_place(_real)

_imag = primitive("imag", lambda x: x.imag, _part_shape)
_imag.vjp(lambda ct, _ans, _x: ct * -1j)
_imag.jvp(lambda t, _ans, _x: np.imag(t))
in_place(_imag)

_conjugate = primitive("conjugate", np.conjugate, ufunc=np.conjugate)
_conjugate.derivative(lambda ct, _ans, _x: np.conjugate(ct))
_conjugate.cost(lambda ans, x: ans.size)


def _is_complex(x: Any) -> bool:
    return dtype_of(x).kind == "c"


@implements(np.real)
def real(val: Any) -> Any:
    """NumPy's ``real``; of a real array itself."""
    return bind(_real, (val,)) if _is_complex(val) else val


@implements(np.imag)
def imag(val: Any) -> Any:
    """NumPy's ``imag``; of a real array plain zeros."""
    return bind(_imag, (val,)) if _is_complex(val) else np.zeros(val.shape, val.dtype)[()]


def conjugate(x: Any) -> Any:
    """NumPy's ``conjugate``, under the name ``conj`` too; of a real array itself."""
    return bind(_conjugate, (x,)) if _is_complex(x) else x


UFUNC_FUNCTIONS[np.conjugate] = conjugate


@implements(np.angle)
def angle(z: Any, deg: bool = False) -> Any:
    """NumPy's ``angle``; at zero it has no derivative: nan."""
    phase = np.arctan2(imag(z), real(z)) if _is_complex(z) else np.arctan2(0, z)
    return phase * (180 / math.pi) if deg else phase


# The sign of a real number has derivative zero and stays a plain value under derivatives. That of a complex number is
# its direction, which turns with it.
_real_sign = primitive_of(np.sign)
del UFUNCS[np.sign]


def _sign(x: Any) -> Any:
    if not _is_complex(x):
        return bind(_real_sign, (x,))
    size = np.abs(x)
    # Zero has no direction: sign and derivative are taken as 0 there.
    return x / np.where(size == 0, np.inf, size)


UFUNC_FUNCTIONS[np.sign] = _sign

# -- tests --------------------------------------------------------------------------------------


@implements(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    """NumPy's ``iscomplexobj``."""
    return _is_complex(x)


@implements(np.isrealobj)
def isrealobj(x: Any) -> bool:
    """NumPy's ``isrealobj``."""
    return not _is_complex(x)


@implements(np.iscomplex)
def iscomplex(x: Any) -> Any:
    """NumPy's ``iscomplex``."""
    return imag(x) != 0


@implements(np.isreal)
def isreal(x: Any) -> Any:
    """NumPy's ``isreal``."""
    return imag(x) == 0


@implements(np.real_if_close)
def real_if_close(a: Any, tol: float = 100) -> Any:
    """NumPy's ``real_if_close``. The dtype of the answer depends on values, so they must be known: not under jit."""
    if not _is_complex(a):
        return a
    if tol > 1:
        tol = float(np.finfo(a.dtype).eps) * tol
    return real(a) if bool(np.all(np.abs(imag(a)) < tol)) else a
