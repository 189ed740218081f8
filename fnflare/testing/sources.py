"""The source text of functions, of lambdas and of the arguments of a call, and the names that a text reads.

Functions and frames go in, text and names come out, or a `NoSourceError`. The writer of examples stands on it.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import linecache
import sys
import textwrap
import threading
import types
from collections.abc import Iterator
from typing import Any

__all__ = [
    "NoSourceError",
    "argument_text",
    "assigned_text",
    "default_names",
    "names_of",
    "names_outside",
    "source_of",
    "value_of_name",
]


class NoSourceError(Exception):
    """There is no text to show."""


def source_of(f: Any) -> str:
    """The text that defines a function or class; of a lambda the expression, in brackets.

    Raises:
        NoSourceError: it was not read from a file or a notebook, or was wrapped since.
    """
    try:
        text = textwrap.dedent(inspect.getsource(f))
    except (OSError, TypeError) as error:
        raise NoSourceError(str(error)) from None
    if getattr(f, "__name__", "") == "<lambda>":
        return f"({_lambda_text(f)})"
    definition = _parse(text).body[0]
    if not isinstance(definition, (ast.FunctionDef, ast.ClassDef)) or definition.name != f.__name__:
        raise NoSourceError("its text is no definition of that name")
    if hasattr(f, "__wrapped__") and not definition.decorator_list:
        raise NoSourceError("it was wrapped after it was defined")
    return text.rstrip()


#: CPython up to 3.12 counts how deep all threads that parse are in one number, and raises SystemError where it is off.
_parsing = threading.Lock()


def _parse(text: str) -> ast.Module:
    try:
        with _parsing:
            return ast.parse(text)
    except (SyntaxError, SystemError) as error:
        raise NoSourceError(str(error)) from None


def _lambda_text(f: types.FunctionType) -> str:
    """The lambda among those of its line in which its own instructions stand."""
    lines = linecache.getlines(f.__code__.co_filename)
    text = "".join(lines)
    places = [(line, column) for line, _, column, _ in f.__code__.co_positions() if line is not None and column]
    found = [
        ast.get_source_segment(text, node) or ""
        for node in ast.walk(_parse(text))
        if isinstance(node, ast.Lambda) and node.lineno == f.__code__.co_firstlineno and _holds(node.body, places)
    ]
    if not found or not places:
        raise NoSourceError("its line has no such lambda")
    return min(found, key=len)  # the innermost


def _holds(node: ast.expr, places: list[tuple[int, int]]) -> bool:
    start, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
    return all(start <= place < end for place in places)


def names_of(text: str) -> Iterator[str]:
    """The names that a text reads, each once, in order."""
    found = [n.id for n in ast.walk(_parse(text)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    return iter(dict.fromkeys(found))


def names_outside(f: Any, text: str) -> Iterator[str]:
    """The names that the text of a function or class reads from around it: not its own variables."""
    if not isinstance(f, types.FunctionType):
        return names_of(text)
    found = [*f.__code__.co_freevars, *_globals_of(f.__code__)]
    heads = _head(text)
    outside = [*getattr(heads, "decorator_list", ()), heads.args, getattr(heads, "returns", None)]
    for part in outside:
        found += [n.id for n in ast.walk(part) if isinstance(n, ast.Name)] if part is not None else []
    return iter(dict.fromkeys(found))


def _head(text: str) -> Any:
    """The node of a function or lambda, which has its arguments."""
    definition: Any = _parse(text).body[0]
    return definition.value if isinstance(definition, ast.Expr) else definition


def default_names(f: types.FunctionType, text: str) -> dict[str, Any]:
    """The names that stand alone as defaults of arguments, and what they meant when the function was made."""
    given = _head(text).args
    places = [*given.posonlyargs, *given.args]
    values = dict(zip([a.arg for a in places][len(places) - len(given.defaults) :], f.__defaults__ or (), strict=True))
    values |= f.__kwdefaults__ or {}
    nodes = [*zip(places[len(places) - len(given.defaults) :], given.defaults, strict=True)]
    nodes += [(a, node) for a, node in zip(given.kwonlyargs, given.kw_defaults, strict=True) if node is not None]
    return {node.id: values[a.arg] for a, node in nodes if isinstance(node, ast.Name) and a.arg in values}


def _globals_of(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_of(constant)


def value_of_name(name: str, f: Any) -> tuple[bool, Any]:
    """What a name that the text of a function or class reads stands for outside of it: whether it is found, and it."""
    if isinstance(f, types.FunctionType):
        if name in f.__code__.co_freevars:
            cell = (f.__closure__ or ())[f.__code__.co_freevars.index(name)]
            try:
                return True, cell.cell_contents
            except ValueError:
                return False, None
        space = f.__globals__
    else:
        space = vars(sys.modules[f.__module__])
    if name in space and not (hasattr(builtins, name) and space[name] is getattr(builtins, name)):
        return True, space[name]
    return False, None


def argument_text(frame: types.FrameType, argument: int) -> str:
    """The text of an argument of the call that a frame is in.

    Raises:
        NoSourceError: the frame's code was not read from a file or a notebook, or the argument was not given so.
    """
    where = inspect.getframeinfo(frame, context=0).positions
    text = "".join(linecache.getlines(frame.f_code.co_filename))
    if where is None or not text:
        raise NoSourceError("the call has no source")
    for node in ast.walk(_parse(text)):
        if not isinstance(node, ast.Call) or tuple(where) != _place(node):
            continue
        if argument < len(node.args) and not any(isinstance(a, ast.Starred) for a in node.args):
            return ast.get_source_segment(text, node.args[argument]) or ""
    raise NoSourceError("the call has no such argument")


def _place(node: ast.expr) -> tuple[Any, ...]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def assigned_text(frame: types.FrameType, name: str) -> str:
    """The text of what a frame's code has assigned to a name.

    Raises:
        NoSourceError: it has no source, or the name is not bound by one assignment alone.
    """
    text = "".join(linecache.getlines(frame.f_code.co_filename))
    lines = range(frame.f_code.co_firstlineno, frame.f_lineno + 1)
    nodes = [node for node in ast.walk(_parse(text)) if getattr(node, "lineno", 0) in lines]
    bound = [n for n in nodes if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)]
    found = [n for n in nodes if isinstance(n, ast.Assign) and n.targets == bound]
    if not found:
        raise NoSourceError(f"{name} is not assigned once")
    return ast.get_source_segment(text, found[0].value) or ""
