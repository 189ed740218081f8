"""`jit`: a function as a program, made once for each structure, shapes and dtypes of its arguments.

A function's arguments go in, their leaves key a program, which the interpreter runs on plain arrays; on tracers
it is bound as one `call`, so that other transforms see a program and not the function. What the function
does besides array operations happens while it is traced, and not again.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fnflare import tree
from fnflare.config import settings
from fnflare.core import Tracer, aval_of, observed
from fnflare.errors import ArgumentError
from fnflare.program.call import call_program
from fnflare.program.closures import cell_content
from fnflare.program.frozen import frozen
from fnflare.program.interpreter import execute, prepare, use_executor
from fnflare.program.ir import Program
from fnflare.program.simplify import simplify
from fnflare.program.tracing import trace_program
from fnflare.transforms._call import name_of, path_name
from fnflare.transforms._mode import is_disabled
from fnflare.transforms._quick import MISSED, Quick, Shape, quick_call
from fnflare.transforms._static import argument_names, static_arguments

if TYPE_CHECKING:
    from fnflare.transforms.stages import Stage

__all__ = ["Jitted", "RetracingWarning", "jit"]

#: A function that is traced for more signatures than this is worth a warning.
_MANY_TRACES = 20
#: How many programs a function keeps; the oldest goes first.
_MOST_ENTRIES = 1024
#: For how many signatures calls go the shortest way at a time: each one is tried.
_MOST_QUICK = 4


class RetracingWarning(UserWarning):
    """A jitted function is traced again and again, for new shapes."""


class _Entry:
    """A function's program for one signature.

    Attributes:
        program: the program.
        consts: tracers of enclosing transforms that it reads; such an entry is not kept.
        structure: of the answer.
        closure: what the function closed over, kept so that its identity stays its own.
        donated: the leaves of the arguments whose memory may be used for the answer.
        calls: how often it was called by the general way, up to two.
        quick: how it is called by the shortest way, if there is one; looked for in the second call, since many
            functions are called once.
    """

    __slots__ = ("calls", "closure", "consts", "donated", "program", "quick", "structure")

    def __init__(
        self, program: Program, consts: list[Any], structure: tree.TreeDef, closure: list[Any], donated: tuple[int, ...]
    ) -> None:
        self.program = program
        self.consts = consts
        self.structure = structure
        self.closure = closure
        self.donated = donated
        self.calls = 0
        self.quick: Quick | None = None


#: Arguments of a function, by position and by name.
_Chosen = tuple[frozenset[int], frozenset[str]]


class Jitted:
    """A function that runs as a program; made by `jit`."""

    def __init__(self, fun: Callable[..., Any], static: _Chosen, donated: _Chosen) -> None:
        self._fun = fun
        self._static_nums, self._static_names = static
        self._donated = donated
        self._plain = not self._static_nums and not self._static_names
        self._entries: dict[Any, _Entry] = {}
        self._quick: tuple[Quick, ...] = ()  # of the entries that went that way last
        self._cells = getattr(fun, "__closure__", None) if isinstance(fun, FunctionType) else None
        self._lock = threading.RLock()
        self._warned = False
        functools.update_wrapper(self, fun)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if is_disabled():
            return self._fun(*args, **kwargs)
        if self._quick and settings.native and not observed():
            for quick in self._quick:
                out = quick(args, kwargs)
                if out is not MISSED:
                    return out
        leaves, structure, statics = self._signature(args, kwargs)
        entry, traced = self._entry(leaves, structure, statics)
        if traced or entry.consts or observed():
            out = call_program(entry.program, [*entry.consts, *leaves])
        else:
            out = execute(entry.program, leaves, entry.donated)
            self._shorten(entry, structure, statics)
        return out[0] if entry.structure.kind is None else tree.unflatten(entry.structure, out)

    def _shorten(self, entry: _Entry, structure: tree.TreeDef, statics: Any) -> None:
        """Let later calls that are like this one go the shortest way."""
        if entry.calls < 2:
            entry.calls += 1
            if entry.calls == 2 and settings.native:
                entry.quick = self._quick_of(entry, structure, statics)
        if entry.quick is not None and entry.quick not in self._quick:
            self._quick = (entry.quick, *self._quick[: _MOST_QUICK - 1])

    def _quick_of(self, entry: _Entry, structure: tree.TreeDef, statics: Any) -> Quick | None:
        from fnflare.compiler.native import checked

        native = checked(entry.program, entry.donated)
        if native is None:
            return None
        by_number, by_name = ((), ()) if self._plain else statics
        positional, keywords = self._structures(structure, statics)
        cells = self._cells or ()
        return quick_call(
            Shape(tuple(positional), (*keywords, *[(k, None) for k, _, _ in by_name]), entry.structure, len(cells)),
            [value for _, _, value in (*by_number, *by_name)],
            cells,
            entry.closure,
            native,
        )

    def lower(self, *args: Any, **kwargs: Any) -> Stage:
        """How the function is run for such arguments: what of it is native code, and its text.

        Args:
            *args, **kwargs: arguments of the function.

        Returns:
            A `Stage`: print it for a report, ask ``as_text("c99")`` for loops in C to read. Nothing is compiled before
            its ``compile()``.

        >>> print(ff.jit(lambda x: np.sort(np.exp(x)) + 1).lower(np.zeros(3)))
        <lambda>: 3 equations in 3 segments
          native: 1 equation: 1 loop nest (1 different), 0 sums of products
          NumPy: 1 equation: sort has no lowering
          native: 1 equation: 1 loop nest (1 different), 0 sums of products
        """
        from fnflare.transforms.stages import Stage

        leaves, structure, statics = self._signature(args, kwargs)
        entry, _ = self._entry(leaves, structure, statics)
        captured = [f"captured/{i}" for i in range(len(entry.consts))]
        names = [*captured, *self._names(leaves, structure, len(args), bool(kwargs))]

        def compiled() -> Jitted:
            prepare(entry.program, entry.donated)
            return self

        return Stage(entry.program.replace(input_names=names), compiled)

    def _names(self, leaves: list[Any], structure: Any, count: int, with_kwargs: bool) -> list[str]:
        """What the leaves are called, where there were `count` positional arguments."""
        paths = [p for p, _ in tree.leaves_with_path(tree.unflatten(structure, leaves))]
        if self._plain and not with_kwargs:
            paths = [(0, *p) for p in paths]
        called = argument_names(self._fun, count)
        dynamic = [name for i, name in enumerate(called) if i not in self._static_nums]
        return [tree.path_str((dynamic[first] if kind == 0 else first, *rest)) for kind, first, *rest in paths]

    def peak_bytes(self, *args: Any, **kwargs: Any) -> int | None:
        """The memory that a call with such arguments needs beside them: scratch memory and the answer.

        Args:
            *args, **kwargs: arguments of the function.

        Returns:
            The bytes, without those of constants; None where the function is not native as a whole. An answer in the
            memory of a donated argument needs none.

        >>> ff.jit(lambda x: np.exp(x) + 1).peak_bytes(np.zeros(1000)) in (8000, None)
        True
        >>> ff.jit(lambda x: np.exp(x) + 1, donate_argnums=0).peak_bytes(np.zeros(1000)) in (0, None)
        True
        """
        from fnflare.compiler.native import peak_bytes

        leaves, structure, statics = self._signature(args, kwargs)
        entry, _ = self._entry(leaves, structure, statics)
        return peak_bytes(entry.program, entry.donated)

    def _entry(self, leaves: list[Any], structure: Any, statics: Any) -> tuple[_Entry, bool]:
        """The program for arguments, and whether one of them is a tracer."""
        traced = False
        avals: list[Any] = []
        for x in leaves:
            kind = type(x)
            if kind is not np.ndarray:
                if isinstance(x, Tracer):
                    traced = True
                    if getattr(x, "weak", False):
                        avals.append(x.dtype)
                        continue
                elif not isinstance(x, (np.ndarray, np.generic)):  # a Python number, or no array at all
                    avals.append(kind)
                    continue
            avals.append(x.dtype)
            avals.append(x.shape)
        key: Any = (structure, statics, tuple(avals))
        if self._cells is not None:
            key = (*key, tuple([id(cell_content(c)) for c in self._cells]))
        entry = self._entries.get(key)
        if entry is None:
            entry = self._trace(key, leaves, structure, statics)
        return entry, traced

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def _structures(
        self, structure: tree.TreeDef, statics: Any
    ) -> tuple[list[tree.TreeDef | None], list[tuple[str, tree.TreeDef]]]:
        """The structures of the positional arguments, None for static ones, and of the others by name."""
        args, kwargs = (structure, None) if statics is False else structure.children
        positional: list[tree.TreeDef | None] = list(args.children)
        for i, _, _ in () if self._plain else statics[0]:
            positional.insert(i, None)
        if kwargs is None:
            return positional, []
        return positional, list(zip(cast(tuple[str, ...], kwargs.aux), kwargs.children, strict=True))

    def _donated_leaves(self, structure: tree.TreeDef, statics: Any) -> tuple[int, ...]:
        """The numbers of the leaves of donated arguments."""
        numbers, names = self._donated
        if not numbers and not names:
            return ()
        positional, keywords = self._structures(structure, statics)
        named = [*[(i in numbers, s) for i, s in enumerate(positional)], *[(k in names, s) for k, s in keywords]]
        whether = [donated for donated, s in named if s is not None for _ in range(s.num_leaves)]
        return tuple([i for i, donated in enumerate(whether) if donated])

    # -- tracing --------------------------------------------------------------------------------

    def _signature(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Any, Any]:
        """The leaves and the structure of the arguments, and the static ones."""
        if self._plain:
            leaves, structure = tree.flatten((args, kwargs) if kwargs else args)
            return leaves, structure, bool(kwargs)
        count = len(args)
        numbers = {n for n in self._static_nums if n < count}
        statics = tuple([(i, self._frozen(i, args[i]), args[i]) for i in sorted(numbers)])
        names = tuple([(k, self._frozen(k, kwargs[k]), kwargs[k]) for k in sorted(self._static_names & kwargs.keys())])
        rest = tuple([a for i, a in enumerate(args) if i not in numbers])
        rest_kwargs = {k: v for k, v in kwargs.items() if k not in self._static_names}
        leaves, structure = tree.flatten((rest, rest_kwargs))
        return leaves, structure, (statics, names)

    def _frozen(self, name: int | str, value: Any) -> Hashable:
        """A static argument as a key, in which 1, 1.0 and True are three."""
        try:
            hash(value)
        except TypeError:
            raise ArgumentError(
                f"jit: static argument {name!r} of {name_of(self._fun)} is a {type(value).__name__}, which is not "
                "hashable; pass a tuple in place of a list, and arrays as arguments that are not static"
            ) from None
        return frozen(value, lasting=True)

    def _arguments(self, leaves: Sequence[Any], structure: Any, statics: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the function, with the static ones in their places."""
        if self._plain:
            filled = tree.unflatten(structure, leaves)
            return filled if statics else (filled, {})
        by_number, by_name = statics
        rest, kwargs = tree.unflatten(structure, leaves)
        args = list(rest)
        for i, _, value in by_number:
            args.insert(i, value)
        return tuple(args), {**kwargs, **{name: value for name, _, value in by_name}}

    def _trace(self, key: Any, leaves: list[Any], structure: Any, statics: Any) -> _Entry:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                return entry
            entry = self._traced(leaves, structure, statics)
            if not entry.consts:
                while len(self._entries) >= _MOST_ENTRIES:
                    del self._entries[next(iter(self._entries))]
                self._entries[key] = entry
                self._warn_of_shapes()
            return entry

    def _traced(self, leaves: list[Any], structure: Any, statics: Any) -> _Entry:
        for x in leaves:
            if not _is_array(x):
                raise self._not_an_array(x, leaves, structure, statics)
        out_structure: Any = None

        def flat(*xs: Any) -> list[Any]:
            nonlocal out_structure
            args, kwargs = self._arguments(xs, structure, statics)
            out_leaves, out_structure = tree.flatten(self._fun(*args, **kwargs))
            return [self._output(x) for x in out_leaves]

        _use_native_code()
        traced = trace_program(flat, [aval_of(x) for x in leaves], name_of(self._fun), self._fun)
        program = simplify(traced.program)
        closure = [cell_content(c) for c in self._cells or ()]
        return _Entry(program, list(traced.captured), out_structure, closure, self._donated_leaves(structure, statics))

    def _output(self, x: Any) -> Any:
        if _is_array(x):
            return x
        raise ArgumentError(
            f"jit: {name_of(self._fun)} returned a {type(x).__name__}; a jitted function returns pytrees of arrays. "
            "Return it from the function around the jitted one"
        )

    def _not_an_array(self, x: Any, leaves: Any, structure: Any, statics: Any) -> ArgumentError:
        args, kwargs = self._arguments(leaves, structure, statics)
        named: list[tuple[Any, Any]] = [*enumerate(args), *kwargs.items()]
        places = [path_name(k, p) for k, v in named for p, leaf in tree.leaves_with_path(v) if leaf is x]
        return ArgumentError(
            f"jit: {places[0]} of {name_of(self._fun)} is a {type(x).__name__}, which is no array; name it in "
            "static_argnums= or static_argnames=, or let the function close over it"
        )

    def _warn_of_shapes(self) -> None:
        if self._warned or len(self._entries) <= _MANY_TRACES:
            return
        self._warned = True
        warnings.warn(
            f"{name_of(self._fun)} has been traced for {len(self._entries)} signatures: {_differences(self._entries)}. "
            "Each new one costs a trace; pad or bucket what varies (ff.pad), or run over it with ff.scan",
            RetracingWarning,
            stacklevel=5,
        )


@functools.cache
def _use_native_code() -> None:
    """Let programs be compiled; importing the compiler takes a moment, so that it waits for the first trace."""
    from fnflare.compiler.native import function_of

    use_executor(function_of)


def _is_array(x: Any) -> bool:
    return isinstance(x, (np.ndarray, np.generic, Tracer, bool, int, float, complex))


def _differences(entries: dict[Any, Any]) -> str:
    """The leaves in which signatures differ, each with a few of the shapes it had."""
    rows = [[a.shape for a in e.program.in_avals] for e in entries.values()]
    width = {len(r) for r in rows}
    if len(width) > 1:
        return f"they have between {min(width)} and {max(width)} array arguments"
    columns = {
        i: list(dict.fromkeys(column)) for i, column in enumerate(zip(*rows, strict=True)) if len(set(column)) > 1
    }
    if not columns:
        return "they differ in static arguments, dtypes or what the function closes over"
    shown = [
        f"leaf {i} had the shapes {', '.join(map(str, shapes[:4]))}{', ...' if len(shapes) > 4 else ''}"
        for i, shapes in list(columns.items())[:4]
    ]
    return "; ".join(shown)


def jit(
    fun: Callable[..., Any] | None = None,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    donate_argnames: str | Sequence[str] = (),
) -> Any:
    """A function that is traced once and then runs as a program.

    Args:
        fun: a pure function of pytrees of arrays and numbers. It is run with tracers that have a shape and a dtype but
            no value, once for each structure, shapes and dtypes of its arguments; what else it does, such as
            printing, happens then. Left out, a decorator comes back: ``@jit(static_argnums=1)``.
        static_argnums: positions of arguments whose value the program may depend on; they must be hashable, and each
            new value is traced anew.
        static_argnames: names of such arguments. Arguments named here are found by position too, and those
            numbered above by name.
        donate_argnums: positions of arguments that the caller does not need any more: native code writes answers of the
            same shape and dtype into their memory where it can, and no memory is needed for those. Such an answer is
            the very array that was passed. What is in a donated array after the call is undefined; NumPy's arrays
            cannot be made to say so. Arrays that are read-only, that do not own their memory, or of which another
            argument shares a part, are copied and not overwritten; no view of a donated array may be in use elsewhere.
        donate_argnames: names of such arguments. Arguments named here are found by position too, and those
            numbered above by name.

    Returns:
        A function with the arguments and the answer of `fun`. It can be differentiated, batched and jitted like any
        other. Arrays that `fun` closes over are constants of the program. With the extra ``fnflare[jit]`` the program
        is compiled when it is first run, as far as its operations can be (see `fnflare.config.use_native`); without it
        NumPy runs it. The function's ``lower(*args)`` tells what is native and what is not, and shows the code as C.

        Where llvmlite is installed it runs as native code, which agrees with NumPy to rounding. That looks at nothing
        but numbers: it gives no warnings of divisions by zero and the like, and an index in an array of indices that
        is out of bounds means the nearest element there is. Under `disable_jit`, and with ``use_native=False`` in
        `fnflare.config`, NumPy warns and raises as ever.

    Raises:
        ConcretizationError: the function needs the value of an array, in a Python ``if`` say.
        ArgumentError: an argument is no array and not static, a static one is not hashable, or is to be donated too.

    >>> @ff.jit
    ... def loss(w, x):
    ...     return np.sum(np.tanh(x @ w))
    >>> float(loss(np.zeros(3), np.ones((2, 3))))
    0.0

    The memory of parameters can be used for those of the next step:

    >>> step = ff.jit(lambda w, x: w - 0.1 * x, donate_argnums=0)
    >>> step(np.ones(2), np.ones(2))
    array([0.9, 0.9])
    """
    if fun is None:
        return functools.partial(
            jit,
            static_argnums=static_argnums,
            static_argnames=static_argnames,
            donate_argnums=donate_argnums,
            donate_argnames=donate_argnames,
        )
    if not callable(fun):
        raise ArgumentError(f"jit: expected a function, got a {type(fun).__name__}")
    static = static_arguments("jit", fun, static_argnums, static_argnames)
    donated = static_arguments("jit", fun, donate_argnums, donate_argnames, "donate")
    both = [*sorted(static[0] & donated[0]), *sorted(static[1] & donated[1])]
    if both:
        raise ArgumentError(f"jit: argument {both[0]!r} of {name_of(fun)} is static, so that it cannot be donated")
    return Jitted(fun, static, donated)
