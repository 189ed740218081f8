"""Values as Python code: from arrays, trees, functions and layers to text that can be pasted and run.

A value goes in; an expression comes out, and what it needs, imports and definitions, is collected. What can be
imported is imported; arrays become literals; a function of the user's that cannot be imported is written out, with
whatever its source names. A value that was written as an expression at the place where a check was called, such as
``nn.Dense(4)``, is written so again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import types
from typing import Any

import numpy as np

from fnflare import nn
from fnflare.testing.sources import (
    NoSourceError,
    argument_text,
    assigned_text,
    default_names,
    names_of,
    names_outside,
    source_of,
    value_of_name,
)
from fnflare.transforms import custom_jvp, custom_vjp

__all__ = ["Writer", "limits_of"]

#: A call that is longer than this has a line for each argument.
_LINE = 100
#: What a function reads from around it is written up to so many characters.
_LONGEST = 2000


class Writer:
    """Writes expressions, and collects what they need.

    Args:
        site: the frame of the user's call, whose arguments are read where a value has no source of its own.

    >>> from fnflare.testing.writing import Writer
    >>> writer = Writer()
    >>> writer.expression({"w": np.array([[0.5, 1.0]], np.float32), "n": (3,)})
    "{'w': np.array([[0.5, 1.0]], np.float32), 'n': (3,)}"
    >>> print(writer.code("print('hello')"))
    import numpy as np
    <BLANKLINE>
    print('hello')
    """

    def __init__(self, site: types.FrameType | None = None) -> None:
        self.site = site
        self.imports: dict[str, None] = {}
        self.definitions: list[str] = []
        self.names: dict[str, Any] = {}

    def code(self, *statements: str) -> str:
        """The imports and definitions, and some statements after them."""
        plain = sorted(line for line in self.imports if line.startswith("import "))
        packages: dict[str, list[str]] = {}
        for line in sorted(set(self.imports) - set(plain)):
            package, names = line.split(" import ")
            packages.setdefault(package, []).append(names)
        plain += [f"{package} import {', '.join(names)}" for package, names in packages.items()]
        blocks = ["\n".join(plain), *self.definitions, "\n".join(statements)]
        return "\n\n".join([block for block in blocks if block])

    def call(self, name: str, /, *args: str, **keywords: str | None) -> str:
        """A call of a function of this package, without the keywords that are None."""
        self._import("testing", sys.modules["fnflare.testing"])
        given = [*args, *[f"{k}={v}" for k, v in keywords.items() if v is not None]]
        line = f"testing.{name}({', '.join(given)})"
        if len(line) <= _LINE:
            return line
        return "\n".join([f"testing.{name}(", *[f"    {text}," for text in given], ")"])

    # -- values -------------------------------------------------------------------------------------

    def expression(self, value: Any) -> str:
        """An expression of a tree of arrays, numbers, strings and what else can be written.

        Raises:
            NoSourceError: the value has no source.
        """
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, np.generic):
            return f"{self.expression(type(value))}({_number(value)})"
        if isinstance(value, float) and not np.isfinite(value):
            return f'float("{value}")'
        if value is None or value is Ellipsis or type(value) in (bool, int, float, complex, str, bytes):
            return repr(value)
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self.expression(k)}: {self.expression(v)}' for k, v in value.items())}}}"
        if type(value) is list:
            return f"[{', '.join(map(self.expression, value))}]"
        if type(value) is tuple:
            return f"({', '.join(map(self.expression, value))}{',' * (len(value) == 1)})"
        if isinstance(value, slice):
            return repr(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            fields = [f"{name}={self.expression(x)}" for name, x in zip(value._fields, value, strict=True)]
            return f"{self.expression(type(value))}({', '.join(fields)})"
        if isinstance(value, functools.partial):
            self._import("functools", functools)
            parts = [self.expression(x) for x in (value.func, *value.args)]
            parts += [f"{name}={self.expression(x)}" for name, x in value.keywords.items()]
            return f"functools.partial({', '.join(parts)})"
        return self._named(value)

    def _array(self, x: np.ndarray) -> str:
        self._import("np", np)
        plain = x.dtype.isnative and x.dtype in (np.float64, np.int64, np.bool_, np.complex128)
        named = x.dtype.isnative and x.dtype.kind in "biufc"
        dtype = "" if plain else f", np.{x.dtype.name}" if named else f", {x.dtype.str!r}"
        if x.size == 0:
            return f"np.zeros({x.shape}, {x.dtype.str!r})"
        if x.dtype.kind not in "biufcSU":
            raise NoSourceError(f"an array of dtype {x.dtype} has no literal")
        first = x.reshape(-1)[0]
        if x.size > 3 and np.all(x == first) and x.dtype.kind == "f":
            if first in (0, 1) and not np.signbit(first):
                return f"np.{'ones' if first else 'zeros'}({x.shape}{dtype})"
            return f"np.full({x.shape}, {_number(first)}{dtype})"
        return f"np.array({_elements(x)}{dtype})"

    def subject(self, value: Any, name: str, argument: int) -> str:
        """An expression of what is under test, a function or a layer.

        Args:
            value: the function or layer.
            name: what to call it where it cannot be written.
            argument: its place among the arguments of the user's call.
        """
        for attempt in (self._public, self.expression, functools.partial(self._at_site, argument=argument)):
            before = dict(self.imports), list(self.definitions), dict(self.names)
            try:
                return attempt(value)
            except (NoSourceError, RecursionError):
                self.imports, self.definitions, self.names = before
        text = getattr(value, "__qualname__", type(value).__name__)
        with contextlib.suppress(NoSourceError):
            text = argument_text(self.site, argument) if self.site else text
            name = text if text.isidentifier() else name
        given = f"`{' '.join(text.split())}` of your call" if text != name else "that of your call"
        self.definitions.append(f"# {name}: {given}, which could not be written here")
        return name

    def _public(self, value: Any) -> str:
        """A layer without settings by the name that it has in `nn`."""
        name = next((n for n in nn.__all__ if getattr(nn, n) is value), None)
        if name is None:
            raise NoSourceError("no name of nn")
        self._import("nn", nn)
        return f"nn.{name}"

    def _at_site(self, value: Any, argument: int) -> str:
        """The text of the argument at the user's call, with what its names stand for there."""
        if self.site is None:
            raise NoSourceError("nobody called")
        text = argument_text(self.site, argument)
        if text.isidentifier():
            text = assigned_text(self.site, text)
        self._names_at(self.site, text)
        return text

    def _names_at(self, site: types.FrameType, text: str) -> None:
        """See to it that names mean what they mean at the user's call: that value, or what was assigned to them."""
        for name in names_of(text):
            space = next((space for space in (site.f_locals, site.f_globals) if name in space), None)
            if space is None or name in self.names:
                continue
            before = dict(self.imports), list(self.definitions), dict(self.names)
            try:
                self._bind(name, space[name])
            except NoSourceError:
                self.imports, self.definitions, self.names = before
                self.names[name] = space[name]
                assigned = assigned_text(site, name)
                self._names_at(site, assigned)
                self.definitions.append(f"{name} = {assigned}")

    # -- names --------------------------------------------------------------------------------------

    def _import(self, name: str, module: types.ModuleType) -> None:
        whole = module.__name__
        if self.names.setdefault(name, module) is not module:
            raise NoSourceError(f"the name {name} stands for two things")
        package, _, last = whole.rpartition(".")
        if whole == name:
            self.imports[f"import {whole}"] = None
        elif last == name and package:
            self.imports[f"from {package} import {last}"] = None
        else:
            self.imports[f"import {whole} as {name}"] = None

    def _bind(self, name: str, value: Any) -> None:
        """See to it that a name means a value in what is written."""
        if isinstance(value, types.ModuleType):
            self._import(name, value)
            return
        if name in self.names:
            if self.names[name] is not value:
                raise NoSourceError(f"the name {name} stands for two things")
            return
        self.names[name] = value
        module = _importable(value)
        if module:
            attribute = value.__qualname__
            self.imports[f"from {module} import {attribute}{'' if attribute == name else f' as {name}'}"] = None
        elif isinstance(value, (types.FunctionType, type)) and value.__name__ == name:
            self._define(value)
        else:
            text = self.expression(value)
            if len(text) > _LONGEST:
                raise NoSourceError(f"the value of {name} is too long to write")
            if text != name:
                self.definitions.append(f"{name} = {text}")

    def _named(self, value: Any) -> str:
        """An expression of what is neither array nor container: a function, a class, a module."""
        name = str(getattr(value, "__name__", ""))
        if name and getattr(np, name, None) is value:
            self._import("np", np)
            return f"np.{name}"
        if name in nn.__all__ and getattr(nn, name) is value:
            self._import("nn", nn)
            return f"nn.{name}"
        if isinstance(value, types.MethodType):
            return f"{self.expression(value.__self__)}.{name}"
        if isinstance(value, (custom_vjp, custom_jvp)):
            return self._with_rules(value)
        if dataclasses.is_dataclass(value) and "__dataclass_fields__" in vars(type(value)):
            given = [field.name for field in dataclasses.fields(value) if field.init]
            parts = [f"{name}={self.expression(getattr(value, name))}" for name in given]
            return f"{self.expression(type(value))}({', '.join(parts)})"
        if not isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)):
            raise NoSourceError(f"a {type(value).__name__} cannot be written as code")
        if value.__module__ == "builtins":
            return name
        if name == "<lambda>":
            text = source_of(value)
            self._names_in(text, value)
            return text
        self._bind(name, value)
        return name

    def _with_rules(self, value: Any) -> str:
        """The name of a function with derivative rules of its own, which are written below it."""
        f, kind = value.fun, type(value).__name__
        define, rules = ("defvjp", (value._fwd, value._bwd)) if kind == "custom_vjp" else ("defjvp", (value._jvp,))
        text = source_of(f)
        decorated = text.lstrip().startswith("@")
        name = f.__name__ if decorated else f"{f.__name__.strip('<>')}_with_rules"
        written = f"the rules of {name}"
        if self.names.setdefault(name, value) is not value or self.names.get(written, value) is not value:
            raise NoSourceError(f"the name {name} stands for two things")
        if written in self.names:
            return name
        self.names[written] = value
        if decorated:
            self._names_in(text, f)
            self.definitions.append(text)
        else:
            self._import("ff", sys.modules["fnflare"])
            options = f", {value.nondiff_argnums!r}" if value.nondiff_argnums else ""
            self.definitions.append(f"{name} = ff.{kind}({self.expression(f)}{options})")
        self.definitions.append(f"{name}.{define}({', '.join([self.expression(rule) for rule in rules])})")
        return name

    def _define(self, value: Any) -> None:
        text = source_of(value)
        self._names_in(text, value)
        self.definitions.append(text)

    def _names_in(self, text: str, f: Any) -> None:
        defaults = default_names(f, text) if isinstance(f, types.FunctionType) else {}
        for name in names_outside(f, text):
            found, value = (True, defaults[name]) if name in defaults else value_of_name(name, f)
            if found and value is not f:
                self._bind(name, value)


def _importable(value: Any) -> str | None:
    """The module from which a function or class can be imported; None where it cannot."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", ".")
    if not isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)) or "." in name:
        return None
    if module in (None, "__main__", "builtins") or getattr(sys.modules.get(module), name, None) is not value:
        return None
    return module


def _elements(x: np.ndarray) -> str:
    """The nested lists of an array."""
    if x.ndim == 0:
        return _number(x[()])
    return f"[{', '.join(map(_elements, x))}]" if x.ndim > 1 else f"[{', '.join(map(_number, x))}]"


def _number(x: Any) -> str:
    """The shortest text of a number that gives it back in its own dtype."""
    if x.dtype.kind in "SU":
        return repr(x.item())
    text = str(x)
    return f"np.{text}" if text in ("nan", "inf") else "-np.inf" if text == "-inf" else text


def limits_of(
    atol: float | None = None, rtol: float | None = None, eps: float | None = None, *, seed: int = 0, name: str = ""
) -> dict[str, str | None]:
    """The texts of the keywords that checks share, None for those that have their default."""
    numbers = {"atol": atol, "rtol": rtol, "eps": eps}
    texts = {k: None if x is None else repr(x) for k, x in numbers.items()}
    return texts | {"seed": str(seed) if seed else None, "name": repr(name) if name not in ("", "jvp", "vjp") else None}
