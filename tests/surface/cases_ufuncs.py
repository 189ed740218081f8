"""Calls of NumPy's ufuncs, and of the functions of elements that are none."""

from typing import Any

import numpy as np
from surface_cases import Case, apart, between, known, normal, quietly

X, ROW, COLUMN, POINT, EMPTY = normal(2, 3), normal(3, seed=1), normal(2, 1, seed=2), normal(seed=3), normal(0, 3)
SMALL = np.array([[-0.9, -0.25, 0.1], [0.4, 0.7, 0.95]])
POSITIVE = between(0.3, 2.0, 2, 3)
LEFT, RIGHT = between(2.1, 2.9, 2, 3), between(0.75, 0.95, 3)
AWAY = apart(2, 3)
INTS, SHIFTS = np.array([[6, 3, 12], [7, 1, 4]]), np.array([2, 1, 3])
MASK, OTHER = np.array([[True, False, True], [False, True, True]]), np.array([True, True, False])

#: Where each ufunc of one argument is smooth, and how many derivatives it has there.
UNARY = {
    "negative": X, "positive": X, "square": X, "reciprocal": POSITIVE, "absolute": AWAY, "fabs": AWAY, "exp": X,
    "exp2": X, "expm1": X, "log": POSITIVE, "log2": POSITIVE, "log10": POSITIVE, "log1p": SMALL, "sqrt": POSITIVE,
    "cbrt": POSITIVE, "sin": X, "cos": X, "tan": SMALL, "arcsin": SMALL, "arccos": SMALL, "arctan": X, "sinh": X,
    "cosh": X, "tanh": X, "arcsinh": X, "arccosh": POSITIVE + 1, "arctanh": SMALL, "deg2rad": X, "rad2deg": X,
    "degrees": X, "radians": X, "sign": AWAY, "floor": AWAY, "ceil": AWAY, "trunc": AWAY, "rint": AWAY,
    "signbit": AWAY, "isnan": X, "isinf": X, "isfinite": X, "spacing": POSITIVE, "modf": AWAY, "frexp": AWAY,
}  # fmt: skip
#: The same of two arguments: one pair, from which broadcasts, numbers on either side and empty arrays are made.
BINARY = {
    "add": (X, ROW), "subtract": (X, ROW), "multiply": (X, ROW), "divide": (X, RIGHT), "true_divide": (X, RIGHT),
    "power": (POSITIVE, ROW), "pow": (POSITIVE, ROW), "float_power": (POSITIVE, ROW), "remainder": (LEFT, RIGHT),
    "mod": (LEFT, RIGHT), "fmod": (LEFT, RIGHT), "floor_divide": (LEFT, RIGHT), "divmod": (LEFT, RIGHT),
    "logaddexp": (X, ROW), "logaddexp2": (X, ROW), "hypot": (X, ROW), "arctan2": (X, RIGHT), "atan2": (X, RIGHT),
    "maximum": (LEFT, RIGHT), "minimum": (LEFT, RIGHT), "fmax": (LEFT, RIGHT), "fmin": (LEFT, RIGHT),
    "copysign": (LEFT, RIGHT), "heaviside": (AWAY, RIGHT), "nextafter": (LEFT, RIGHT), "less": (LEFT, RIGHT),
    "less_equal": (LEFT, RIGHT), "greater": (LEFT, RIGHT), "greater_equal": (LEFT, RIGHT), "equal": (LEFT, RIGHT),
    "not_equal": (LEFT, RIGHT), "logical_and": (AWAY, RIGHT), "logical_or": (AWAY, RIGHT),
    "logical_xor": (AWAY, RIGHT),
}  # fmt: skip
FLAT = {
    "sign", "floor", "ceil", "trunc", "rint", "signbit", "isnan", "isinf", "isfinite", "spacing", "floor_divide",
    "less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "logical_and", "logical_or", "logical_xor",
}  # fmt: skip
DOUBLE = {"float_power"}  # computes in float64, whatever its arguments are


def _unary(name: str, x: np.ndarray) -> list[Case]:
    ufunc = getattr(np, name)
    order = 0 if name in FLAT else 2
    return [Case(name, ufunc, (x,), order), Case(name, ufunc, (x[0, 1],), order), Case(name, ufunc, (x[:0],), order)]


def _binary(name: str, x: np.ndarray, y: np.ndarray) -> list[Case]:
    ufunc = getattr(np, name)
    order = 0 if name in FLAT else 2
    number = float(y[0])
    return [
        Case(name, ufunc, (x, y), order),
        Case(name, ufunc, (x[:, :1], y), order),
        Case(name, ufunc, (x[0, 0], y[1]), order),
        Case(name, lambda a: ufunc(a, number), (x,), order),
        Case(name, lambda b: ufunc(float(x[0, 0]), b), (y,), order),
    ]


def _some(x: Any) -> Any:
    return np.where(x > 0, x, np.nan)


CASES = [
    *[case for name, x in UNARY.items() for case in _unary(name, x)],
    *[case for name, (x, y) in BINARY.items() for case in _binary(name, x, y)],
    *[
        Case(name, lambda x, name=name: getattr(np, name)(x.astype(int), SHIFTS), (10 * POSITIVE,), 0)
        for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "gcd", "lcm")
    ],
    Case("bitwise_count", lambda x: np.bitwise_count(x.astype(int)), (10 * AWAY,), 0),
    Case("invert", lambda x: np.invert(x.astype(int)), (10 * AWAY,), 0),
    Case("invert", lambda x: x * ~MASK, (X,)),
    Case("logical_not", np.logical_not, (AWAY,), 0),
    Case("logical_not", lambda x: x * np.logical_not(MASK), (X,)),
    Case("logical_and", lambda x: x * np.logical_and(MASK, OTHER), (X,)),
    Case("ldexp", lambda x: np.ldexp(x, SHIFTS), (X,)),
    Case("ldexp", lambda x: np.ldexp(x, -3), (POINT,)),
    Case("modf", np.modf, (np.array([-2.5, 1.25, -0.75]),)),
    Case("frexp", np.frexp, (np.array([-2.5, 1.25, 0.03]),)),
    Case("divmod", lambda x, y: divmod(x, y), (LEFT, RIGHT)),
    Case("heaviside", lambda y: np.heaviside(np.array([-1.0, 0.0, 2.0]), y), (ROW,)),
    Case("power", lambda x: x**3, (X,)),
    Case("power", lambda x: np.power(2.0, x), (X,)),
    Case("add", lambda x, y: np.add.outer(x, y), (X, ROW)),
    Case("add.outer", lambda x, y: np.add.outer(x, y), (X, ROW)),
    Case("multiply.outer", lambda x: np.multiply.outer(x, [1.0, 2.0]), (POINT,)),
    Case("maximum.outer", lambda x: np.maximum.outer(2.1, x), (RIGHT,)),
    Case("subtract.outer", lambda x: np.subtract.outer(x, x[:2]), (ROW,)),
    # -- functions of elements ----
    Case("sinc", np.sinc, (np.array([-1.3, -0.3, 1e-3, 0.0, 0.2, 2.5]),)),
    Case("sinc", np.sinc, (POINT,)),
    Case("i0", np.i0, (np.array([-2.5, -0.1, 0.0, 1e-3, 3.0, 9.5]),)),
    Case("i0", np.i0, (POINT,)),
    Case("round", lambda x: np.round(x, 1), (AWAY,), 0),
    Case("round", lambda x: np.round(x, decimals=-1), (10 * AWAY,), 0),
    Case("round", lambda x: x.round(2), (AWAY,), 0),
    Case("around", np.around, (AWAY,), 0),
    Case("fix", quietly(np.fix), (AWAY,), 0),
    Case("isposinf", np.isposinf, (np.array([1.0, np.inf, -np.inf]),), 0),
    Case("isneginf", np.isneginf, (np.array([1.0, np.inf, -np.inf]),), 0),
    Case("isclose", lambda x, y: np.isclose(x, y), (X, X + 1e-9), 0),
    Case("isclose", lambda x: np.isclose(x, [np.nan, 1.0, np.inf], equal_nan=True), (np.array([np.nan, 1.1, 1.0]),), 0),
    Case("allclose", lambda x: x * np.allclose(x, x + 1e-12), (X,)),
    Case("allclose", lambda x: x * np.allclose(x, 1.0), (X,)),
    Case("array_equal", lambda x: x * np.array_equal(x, x) + np.array_equal(x, x[0]), (X,)),
    Case("array_equal", lambda x: x * np.array_equal(_some(x), _some(x), equal_nan=True), (X,)),
    Case("array_equiv", lambda x: x * np.array_equiv(x, x[:1]) + np.array_equiv(x, 1.5), (X,)),
    Case("astype", lambda x: np.astype(x, np.float64), (X,)),
    Case("astype", lambda x: np.astype(x, np.int32, copy=False), (AWAY,), 0),
    Case("unstack", lambda x: np.unstack(x, axis=1), (X,)),
    Case("clip", lambda x: np.clip(x, -0.5, 0.5), (AWAY,)),
    Case("clip", lambda x: np.clip(x, None, 0.3), (AWAY,)),
    Case("clip", lambda x: np.clip(x, -0.2, None), (AWAY,)),
    Case("clip", lambda x: np.clip(x, a_min=-0.2, a_max=0.4), (AWAY,)),
    *filter(
        known,
        [
            Case("clip", lambda x: np.clip(x, min=-0.2, max=0.4), (AWAY,)),
            Case("clip", lambda x: np.clip(x, max=0.4), (AWAY,)),
        ],
    ),
    Case("clip", lambda x, low: np.clip(x, low, low + 1), (AWAY, ROW)),
    Case("clip", lambda x: x.clip(-0.2, 0.4) + x.clip(min=0.1), (AWAY,)),
    Case("clip", lambda x: np.clip(x, 0.5, -0.5), (AWAY,)),
    Case("clip", lambda x: np.clip(0.3, x, x + 1), (POINT,)),
]  # fmt: skip
CASES = [c for c in CASES if hasattr(np, c.function.split(".")[0])]
if hasattr(np, "matvec"):  # NumPy 2.2
    CASES += [
        Case("matvec", np.matvec, (normal(2, 2, 3), normal(2, 3))),
        Case("vecmat", np.vecmat, (normal(2, 2), normal(2, 2, 3))),
    ]
