"""Programs as text, for people.

A program goes in, lines come out: a header, one equation a line, and programs inside of equations as indented
blocks below them. What variables, types, constants and parameters are called is decided here, also for
pictures; the same program always gives the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count, product
from pathlib import PurePath
from string import ascii_lowercase
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np

from fnflare.core import ShapeDtypeStruct, Source, cell_name
from fnflare.program.ir import Atom, Equation, Literal, Program, Var

__all__ = [
    "atom_text",
    "count_equations",
    "equation_text",
    "inner_programs",
    "names_of",
    "params_text",
    "places_of",
    "plain_params",
    "source_columns",
    "text",
    "title_of",
    "type_text",
]

#: A header that is longer than this has a line for each input.
_WIDTH = 100
#: The margin starts here at the latest, but for lines that are longer.
_MARGIN = 88
#: A parameter longer than this is cut.
_LONGEST_PARAM = 80
#: A name that can stand in the text as it is; any other one is quoted.
_PLAIN = re.compile(r"[^\W\d][\w./-]*")
#: The functions inside of which a function is defined.
_SURROUNDINGS = re.compile(r"[\w.<>]*<locals>\.")
#: What the repr of an object without one of its own ends in, which differs from run to run.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_WEAK = {"i": "int", "f": "float", "c": "complex"}

Names = dict[Var, str]


class _Row(NamedTuple):
    text: str
    source: Source | None = None


def text(program: Program, lines: bool = False, nested: bool = True) -> str:
    """A program as text; see `fnflare.program.Program.text`."""
    rows = list(_block(program, names_of(program), "", "", nested))
    return "\n".join(_with_margin(rows, places_of(program)) if lines else [row.text for row in rows])


def _block(program: Program, names: Names, indent: str, label: str, nested: bool) -> Iterator[_Row]:
    """The lines of a program, which is called `label` among the parameters of an equation."""
    yield from _header(program, names, indent, label)
    for equation in program.equations:
        yield _Row(f"{indent}    {equation_text(equation, names, nested)}", equation.source)
        if nested:
            for inner_label, inner in inner_programs(equation):
                yield from _block(inner, names, f"{indent}        ", inner_label, nested)
    outputs = ", ".join([atom_text(a, names) for a in program.outputs])
    yield _Row(f"{indent}    return {outputs}".rstrip())


def _header(program: Program, names: Names, indent: str, label: str) -> Iterator[_Row]:
    start = indent + title_of(program, label)
    inputs = [_declaration(v, names) for v in program.inputs]
    line = f"{start}({', '.join(inputs)}):"
    if len(line) <= _WIDTH:
        yield _Row(line)
        return
    yield _Row(f"{start}(")
    for declaration in inputs:
        yield _Row(f"{indent}    {declaration},")
    yield _Row(f"{indent}):")


def title_of(program: Program, label: str = "") -> str:
    """What a program is called: by its function, without the functions around that, and by its parameter's name."""
    title = f"program {_SURROUNDINGS.sub('', program.name)}".rstrip()
    return title if label in ("", "program") else f"{label} = {title}"


def _declaration(v: Var, names: Names) -> str:
    return f"{names.get(v, '?')}: {type_text(v.aval)}"


def equation_text(equation: Equation, names: Names, nested: bool = True) -> str:
    """An equation in one line; programs in its parameters are only named where they do not follow as blocks."""
    outputs = ", ".join([_declaration(v, names) for v in equation.outputs])
    shown = plain_params(equation) if nested else equation.params or {}
    operation = equation.prim.name + (f"[{params_text(shown)}]" if shown else "")
    inputs = [atom_text(a, names) for a in equation.inputs]
    return " ".join([*([outputs, "="] if outputs else []), operation, *inputs])


# -- names --------------------------------------------------------------------------------------


def names_of(program: Program) -> Names:
    """What each variable is called: an input by its own name where it is the only one of its program with that
    name, and every other variable by a letter, in the order of the text."""
    own = _own_names(program, {})
    taken = set(own.values())
    letters = (letter for letter in _letters() if letter not in taken)
    names: Names = {}
    _name(program, own, letters, names)
    return names


def _own_names(program: Program, own: Names) -> Names:
    for v, name in zip(program.inputs, program.input_names, strict=True):
        if name and program.input_names.count(name) == 1:
            own.setdefault(v, name if _PLAIN.fullmatch(name) else repr(name))
    for equation in program.equations:
        for _, inner in inner_programs(equation):
            _own_names(inner, own)
    return own


def _name(program: Program, own: Names, letters: Iterator[str], names: Names) -> None:
    def name(variables: Sequence[Var]) -> None:
        for v in variables:
            if v not in names:
                names[v] = own.get(v) or next(letters)

    name(program.inputs)
    for equation in program.equations:
        name(equation.outputs)
        for _, inner in inner_programs(equation):
            _name(inner, own, letters, names)


def _letters() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    for n in count(1):
        for letters in product(ascii_lowercase, repeat=n):
            yield "".join(letters)


def inner_programs(equation: Equation) -> list[tuple[str, Program]]:
    """The programs among the parameters of an equation: those that are one, and the elements of sequences of them.

    Each comes with what it is called, such as ``"body"`` or ``"branches[1]"``.
    """
    found: list[tuple[str, Program]] = []
    for name, value in (equation.params or {}).items():
        if isinstance(value, Program):
            found.append((name, value))
        elif _holds_programs(value):
            found += [(f"{name}[{i}]", p) for i, p in enumerate(value)]
    return found


def plain_params(equation: Equation) -> dict[str, Any]:
    """The parameters of an equation that are no programs."""
    params = equation.params or {}
    return {name: x for name, x in params.items() if not isinstance(x, Program) and not _holds_programs(x)}


def _holds_programs(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and bool(x) and all(isinstance(p, Program) for p in x)


def count_equations(program: Program) -> int:
    """How many equations a program has, with those of the programs inside of it."""
    inner = [p for equation in program.equations for _, p in inner_programs(equation)]
    return len(program.equations) + sum(map(count_equations, inner))


# -- types, constants and parameters ------------------------------------------------------------


def type_text(aval: ShapeDtypeStruct) -> str:
    """An abstract value: ``float32[3,4]``, or ``float`` for a Python number.

    >>> from fnflare.program.printing import type_text
    >>> type_text(ff.ShapeDtypeStruct((3, 4), np.float32))
    'float32[3,4]'
    """
    if aval.weak:
        return _WEAK[aval.dtype.kind]
    return f"{aval.dtype}[{','.join(map(str, aval.shape))}]"


def atom_text(atom: Atom, names: Names) -> str:
    """A variable by its name, ``?`` where no equation defines it; a constant by its value or its shape."""
    return _constant(atom) if isinstance(atom, Literal) else names.get(atom, "?")


def _constant(literal: Literal) -> str:
    value = literal.value
    if isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic):
        return repr(value)
    array = np.asarray(value)
    if not array.shape:
        return _scalar(array)
    number = literal.repeated
    return f"({type_text(literal.aval)} {'const' if number is None else f'all {number!s}'})"


def _scalar(array: Any) -> str:
    """A NumPy scalar: its dtype matters, since it does not give way."""
    value = array[()]
    return str(value) if array.dtype.kind == "b" else f"{array.dtype}({value!s})"


def params_text(params: dict[str, Any]) -> str:
    """Static parameters: ``axes=(0,) keepdims=False``."""
    return " ".join([f"{name}={_cut(_param(value))}" for name, value in params.items()])


def _cut(s: str) -> str:
    return s if len(s) <= _LONGEST_PARAM else f"{s[: _LONGEST_PARAM - 3]}..."


def _param(x: Any) -> str:
    if isinstance(x, Program):
        return title_of(x)
    if isinstance(x, slice):
        parts = ["" if i is None else _param(i) for i in (x.start, x.stop, x.step)]
        return ":".join(parts if parts[2] else parts[:2])
    if isinstance(x, EllipsisType):
        return "..."
    if isinstance(x, np.dtype):
        return str(x)
    if isinstance(x, np.generic):
        return str(x)
    if isinstance(x, np.ndarray):
        return _constant(Literal(x))
    if isinstance(x, ShapeDtypeStruct):
        return type_text(x)
    if isinstance(x, dict):
        return "{" + ", ".join([f"{_param(k)}: {_param(v)}" for k, v in x.items()]) + "}"
    if isinstance(x, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_param, x))) + "}"
    if isinstance(x, tuple):
        return _tuple(x)
    if isinstance(x, list):
        return f"[{', '.join(map(_param, x))}]"
    if callable(x):
        return str(getattr(x, "__qualname__", None) or getattr(x, "__name__", None) or type(x).__qualname__)
    return " ".join(_ADDRESS.sub("", repr(x)).split())


def _tuple(x: tuple[Any, ...]) -> str:
    items = [_param(i) for i in x]
    if hasattr(x, "_fields"):
        return f"{type(x).__name__}({', '.join([f'{f}={i}' for f, i in zip(x._fields, items, strict=True)])})"
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


# -- the margin ---------------------------------------------------------------------------------


def places_of(program: Program) -> dict[str, str]:
    """The files that the equations come from, each with the shortest end of its path that no other one has; cells of
    a notebook by their number."""
    files: dict[str, tuple[str, ...]] = {}
    _collect_files(program, files)
    return {file: cell_name(file) or _shortest(parts, list(files.values())) for file, parts in files.items()}


def _collect_files(program: Program, files: dict[str, tuple[str, ...]]) -> None:
    for equation in program.equations:
        if equation.source is not None:
            file = equation.source.code.co_filename
            files.setdefault(file, PurePath(file).parts)
        for _, inner in inner_programs(equation):
            _collect_files(inner, files)


def _shortest(parts: tuple[str, ...], all_parts: Sequence[tuple[str, ...]]) -> str:
    for n in range(1, len(parts)):
        if sum(other[-n:] == parts[-n:] for other in all_parts) == 1:
            return str(PurePath(*parts[-n:]))
    return str(PurePath(*parts))


def source_columns(source: Source | None, places: dict[str, str]) -> tuple[str, str, str]:
    """Where an equation comes from: file and line, the path of the layer, and the phase unless it is forward."""
    if source is None:
        return "", "", ""
    place = f"{places[source.code.co_filename]}:{source.line}"
    return place, "/".join(source.path), "" if source.phase == "forward" else source.phase


def _with_margin(rows: Sequence[_Row], places: dict[str, str]) -> list[str]:
    columns = [source_columns(row.source, places) for row in rows]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    start = min(max([len(row.text) for row in rows]), _MARGIN)
    lines = []
    for row, where in zip(rows, columns, strict=True):
        margin = "  ".join([w.ljust(n) for w, n in zip(where, widths, strict=True) if n]).rstrip()
        lines.append(f"{row.text.ljust(start)}  # {margin}" if margin else row.text)
    return lines
