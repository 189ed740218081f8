"""Makes `docs/numpy.md`: for every public function of NumPy what becomes of it on tracers.

What the tables of tracers serve is measured by the calls in `tests/surface/cases_*.py`, which are run and lowered here;
what they do not serve is listed with what to write instead. Run `python -m tests.numpy_table` to write the page;
`tests/test_numpy_table.py` holds it to what is said.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parent.parent
for _folder in (ROOT, ROOT / "tests", ROOT / "tests" / "surface"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from surface_cases import Case, all_cases  # noqa: E402

import fnflare as ff  # noqa: E402
from fnflare.core.tracer import ADVICE, FUNCTIONS, UFUNC_FUNCTIONS, UFUNCS  # noqa: E402

PAGE = ROOT / "docs" / "numpy.md"

#: Functions that take no array, or none that is computed with: sizes, dtypes, names, settings, files to read.
WITHOUT_ARRAYS = frozenset(
    [
        "arange", "bartlett", "base_repr", "binary_repr", "blackman", "broadcast_shapes", "busday_count",
        "busday_offset", "can_cast", "datetime_as_string", "datetime_data", "diag_indices", "einsum_path", "empty",
        "eye", "format_float_positional", "format_float_scientific", "from_dlpack", "frombuffer", "fromfile",
        "fromfunction", "fromiter", "frompyfunc", "fromregex", "fromstring", "genfromtxt", "get_include",
        "get_printoptions", "getbufsize", "geterr", "geterrcall", "hamming", "hanning", "identity", "indices", "info",
        "is_busday", "isdtype", "isfortran", "isscalar", "issubdtype", "iterable", "kaiser", "load", "loadtxt",
        "mask_indices", "mintypecode", "nested_iters", "ones", "printoptions", "promote_types", "ravel_multi_index",
        "set_printoptions", "setbufsize", "seterr", "seterrcall", "show_config", "show_runtime", "test", "tri",
        "tril_indices", "triu_indices", "typename", "unravel_index", "zeros", "fft.fftfreq", "fft.rfftfreq",
    ]
)  # fmt: skip


class Row(NamedTuple):
    """What the page says of a function."""

    name: str
    reverse: str
    forward: str
    vmap: str
    jit: str


class Refusal(NamedTuple):
    """What the page says of a function that tracers do not take."""

    name: str
    instead: str


#: Names that are going away, of isin, vstack and trapezoid.
GOING = ("in1d", "row_stack", "trapz")


def public_functions() -> dict[str, Any]:
    """The public functions of NumPy, by their names below ``numpy``."""
    out: dict[str, Any] = {}
    for module, prefix in ((np, ""), (np.linalg, "linalg."), (np.fft, "fft.")):
        for name in sorted(module.__all__):
            function = getattr(module, name)
            if name.startswith("_") or name in GOING:
                continue
            if callable(function) and not isinstance(function, type):
                out[prefix + name] = function
    return out


def special_functions() -> dict[str, Any]:
    """The functions of ``scipy.special`` that tracers take."""
    import scipy.special as sp

    import fnflare.ops.scipy_special  # noqa: F401

    return {f"scipy.special.{name}": f for name in sorted(sp.__all__) if server(f := getattr(sp, name)) is not None}


def server(function: Any) -> Any:
    """What serves a function on tracers; None where nothing does, or what does refuses them."""
    if isinstance(function, np.ufunc):
        return UFUNCS.get(function) or UFUNC_FUNCTIONS.get(function)
    serve = FUNCTIONS.get(function)
    return None if hasattr(serve, "instead") else serve


def cases_by_name() -> dict[str, list[Case]]:
    """The listed calls of each function."""
    out: dict[str, list[Case]] = {}
    for case in all_cases():
        out.setdefault(case.function, []).append(case)
    return out


def row(name: str, cases: Iterable[Case]) -> Row:
    """What the calls of a function show."""
    cases = list(cases)
    reverse = _summary([_derivative(c, lambda c: ff.vjp(c.call, *c.args)[1]) for c in cases])
    forward = _summary([_derivative(c, lambda c: ff.jvp(c.call, c.args, _tangents(c.args))) for c in cases])
    return Row(name, reverse, forward, _summary(["yes" if c.vmap else "no" for c in cases]), _jit(cases))


def _tangents(args: Any) -> Any:
    from fnflare.testing import random_like

    return random_like(args)


def _derivative(case: Case, run: Callable[[Case], Any]) -> str:
    run(case)  # raises where there is no rule
    return "yes" if case.order else "zero"


def _summary(answers: list[str]) -> str:
    """One word for what several calls show: where any has a derivative, the function has."""
    kinds = set(answers)
    return kinds.pop() if len(kinds) == 1 else "yes" if "zero" in kinds else "in part"


def _jit(cases: list[Case]) -> str:
    kinds = {_lowering(c) for c in cases if not _is_empty(c)}
    kinds = kinds - {"complex"} or {"border"}
    if len(kinds) == 1:
        return kinds.pop()
    return "in part native" if "native" in kinds else "border" if "border" in kinds else "no"


def _is_empty(case: Case) -> bool:
    """Whether the call is on arrays without elements, of which a program is nothing at all."""
    return any(np.size(a) == 0 for a in ff.tree.leaves(case.args))


def _lowering(case: Case) -> str:
    """How a program of the call is run: as native code, or by NumPy between native segments."""
    if not case.jit:
        return "no"
    stage = ff.jit(case.call).lower(*case.args)
    if stage.is_native:
        return "native"
    atoms = [a for e in stage.program.equations for a in (*e.inputs, *e.outputs)]
    return "complex" if any(a.aval.dtype.kind == "c" for a in atoms) else "border"


def methods() -> list[str]:
    """The methods of arrays and of ufuncs that there are calls of."""
    return sorted(n for n in cases_by_name() if n.startswith("ndarray.") or _is_method(n))


def _is_method(name: str) -> bool:
    ufunc, _, method = name.partition(".")
    return isinstance(getattr(np, ufunc, None), np.ufunc) and bool(method)


def calls(functions: dict[str, Any]) -> dict[str, list[Case]]:
    """The listed calls of each function, or, where it has none of its own, of those that are served by the same."""
    cases = cases_by_name()
    by_server: dict[int, list[Case]] = {}
    for name, function in functions.items():
        if name in cases and server(function) is not None:
            by_server.setdefault(id(server(function)), []).extend(cases[name])
    return {n: cases.get(n) or by_server.get(id(server(f)), []) for n, f in functions.items() if server(f) is not None}


def refusals() -> list[Refusal]:
    """The functions that take arrays and are not for tracers."""
    out = []
    for name, function in public_functions().items():
        if server(function) is None and name not in WITHOUT_ARRAYS:
            instead = getattr(FUNCTIONS.get(function), "instead", None)
            out.append(Refusal(name, f"write `{instead}`" if instead else ADVICE.get(f"numpy.{name}", "")))
    return out


INTRODUCTION = """\
# NumPy's functions on tracers

What becomes of each public function of `numpy`, `numpy.linalg`, `numpy.fft` and `scipy.special` when it meets an array
that is differentiated, batched or traced. This page is made by `python -m tests.numpy_table` from the tables by which
tracers serve NumPy, and from the calls in `tests/surface`, each of which the tests hold to NumPy's value, shape and
dtype, to finite differences in both modes and to second order, to the stack under `vmap`, and to itself under `jit`.

- **reverse**, **forward**: `yes`, there are derivatives, of any order; `zero`, the answer is piecewise constant, or of
  integers, and comes out as a plain value.
- **vmap**: whether it batches.
- **jit**: `native`, it is compiled; `border`, NumPy runs it between native segments of the program; `no`, the shape of
  its answer depends on values, which a program does not have. `in part`: it depends on the arguments. That is of
  real numbers: operations on complex ones, and on float16, are always run by NumPy.

Where a function has no derivative at a point, it has a subgradient, the same in both modes:

- a tie of `maximum`, `minimum`, `fmax`, `fmin` and `clip` gives half of the derivative to each side; one among the
  elements of `max` and its kin shares it equally;
- `absolute` and `sign` have derivative 0 at 0, `heaviside` passes it to its second argument there;
- `sqrt`, `cbrt`, `arcsin` and `arccos` are infinitely steep at the ends of their domains, as they are; `hypot` at
  the origin is not a number (`np.where` with safe arguments says what is wanted there);
- `remainder`, `floor_divide`, `modf` and all roundings keep to the piece that they are on.

Ufuncs take `dtype=`, `signature=`, `casting=`, `order=` and `subok=` as NumPy has them (the last two say nothing of a
tracer), `axis=`, `axes=` and `keepdims=` where they are generalised, and have `outer`. `out=` and `ufunc.at` raise:
what is written into memory of the caller's would have lost its derivative (`x = x + t`, `ff.at(x)[i].add(t)`).
`where=` raises: what it leaves out is undefined (`np.where(mask, f(x), otherwise)`). `order="A"` and `order="K"` raise
where an array has more than one axis: they count elements as these lie in memory, and an array that is traced says
nothing of that (`order="C"`, `order="F"`). Results have NumPy's dtypes, and gradients those of their parameters, in the
machine's byte order. `flags[i] = t`, with `flags` an array of truth
values, stores the truth of `t`, as `if t:` tests it; any other array refuses a tracer. Functions of SciPy that are no
ufuncs cannot be served, since SciPy makes arrays of their arguments before anybody is asked: they raise, and name
what to write (`ff.nn.softmax`, `ff.nn.log_softmax`, `ff.nn.logsumexp`).
"""


def page() -> str:
    """The page."""
    parts = [INTRODUCTION]
    functions = public_functions()
    served = calls(functions)
    cases = cases_by_name()
    for title, found in (
        ("numpy", {n: c for n, c in served.items() if "." not in n}),
        ("numpy.linalg", {n: c for n, c in served.items() if n.startswith("linalg.")}),
        ("numpy.fft", {n: c for n, c in served.items() if n.startswith("fft.")}),
        ("Methods", {n: cases[n] for n in methods()}),
        ("scipy.special", calls(special_functions())),
    ):
        lines = [row(name, of) for name, of in found.items() if of]
        if lines:
            parts.append(f"## {title}\n\n{_table(('function', 'reverse', 'forward', 'vmap', 'jit'), lines)}")
    parts.append(
        "## Refused\n\nThese raise a typed error that names them, whatever the transform.\n\n"
        + _table(("function", "instead"), refusals())
    )
    without = ", ".join(
        f"`{n}`" for n in sorted(n for n in functions if n in WITHOUT_ARRAYS and server(functions[n]) is None)
    )
    parts.append(f"## Without arrays\n\nThese take no array that could be a tracer.\n\n{without}\n")
    return "\n".join(parts) + f"\nMade with NumPy {'.'.join(np.__version__.split('.')[:2])}.\n"


def _table(header: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    out = [" | ".join(header), " | ".join("---" for _ in header)]
    out += [" | ".join([f"`{name}`", *rest]) for name, *rest in lines]
    return "\n".join(f"| {line} |" for line in out) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
