"""A module of loop nests as a translation unit of C99 that a person can read and any compiler compiles.

A module goes in; a function for each of its kernels comes out, in which loops and buffers have their names and a
comment says where the user wrote it, and one function for its body. It is the twin of the renderer to LLVM's language,
which runs; this one reads, and is what models are exported as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fnflare.compiler.c99.contract import Contractions
from fnflare.compiler.c99.helpers import Helpers
from fnflare.compiler.c99.layout import Lines, comment, wrapped
from fnflare.compiler.c99.literals import C_TYPES
from fnflare.compiler.c99.names import Names, check_identifier
from fnflare.compiler.c99.scope import Scope
from fnflare.compiler.c99.statements import Block
from fnflare.compiler.c99.uses import buffers, pruned, sizes, written
from fnflare.nest import (
    Branch,
    Buffer,
    Contract,
    Index,
    Kernel,
    Loop,
    Module,
    Part,
    Repeat,
    Run,
    Sections,
    Size,
    Statement,
)

__all__ = ["Unit", "render"]


def render(module: Module, name: str) -> str:
    """A module as the text of a translation unit of C99.

    The function `name` is given pointers to all buffers of the module, in their order, then its sizes. Scratch buffers
    may share memory where their lifetimes allow, so its pointers are not ``restrict``; those of the kernels are.

    Args:
        module: the loop nests.
        name: what the function is called, an identifier of C.

    Returns:
        The text. It compiles with ``-std=c99 -Wall -Wextra -Werror`` and needs nothing but libm.

    Raises:
        ArgumentError: if `name` is no identifier of C.
        UnsupportedError: if an operation has no meaning on the type that it is given.

    >>> from fnflare.compiler.c99.render import render
    >>> from fnflare.nest import Axis, Buffer, Element, Kernel, Module, Part, Run, Size, Store, index
    >>> n = Size("n")
    >>> x, y = Buffer("x", "f32", index(n), "input"), Buffer("y", "f32", index(n), "output")
    >>> i = Axis("i", index(n))
    >>> twice = Kernel("twice", (x, y), (n,), i, (Store(y, index(i), Element("f32", x, index(i)) * 2.0),))
    >>> body = (Run(twice, (Part(x, index(0)), Part(y, index(0))), (index(n),)),)
    >>> print(render(Module("f", (x, y), (n,), (twice,), body), "f"))
    /* f
     *
     *     x  input, n float
     *     y  output, n float
     *     n  size
     */
    #include <math.h>
    #include <stdint.h>
    <BLANKLINE>
    static void twice(const float *restrict x, float *restrict y, int64_t n) {
        for (int64_t i = 0; i < n; i++) {
            y[i] = x[i] * 2.0f;
        }
    }
    <BLANKLINE>
    void f(const float *x, float *y, int64_t n);
    <BLANKLINE>
    void f(const float *x, float *y, int64_t n) {
        twice(x, y, n);
    }
    <BLANKLINE>
    """
    check_identifier(name)
    unit = Unit(taken=[name])
    head = comment([module.name, "", *_described(module)])
    body = unit.body(module, name)
    return unit.text(head, [f"{body[0]};", "\n".join(body[1])])


def _described(module: Module) -> list[str]:
    """What the function is given, a line each."""
    rows = [(b.name, f"{b.role}, {b.size} {C_TYPES[b.dtype]}") for b in module.buffers]
    rows += [(s.name, "size") for s in module.sizes]
    width = max((len(n) for n, _ in rows), default=0)
    return [f"    {n:{width}}  {text}" for n, text in rows]


@dataclass(frozen=True, slots=True)
class _Function:
    """A function of C for a kernel, and which of the kernel's parameters and sizes it is given: those that it uses."""

    name: str
    parameters: tuple[int, ...]
    sizes: tuple[int, ...]


class Unit:
    """A translation unit that is being written: kernels, the helpers they need, and names that are taken in it."""

    def __init__(self, taken: Sequence[str] = ()) -> None:
        self.names = Names(taken=taken)
        self.helpers = Helpers()
        self._contractions = Contractions()
        self._functions: dict[tuple[Kernel, tuple[str, ...]], _Function] = {}
        self._texts: list[str] = []

    def body(
        self, module: Module, name: str, static: bool = False, called: Mapping[Buffer, str] | None = None
    ) -> tuple[str, list[str]]:
        """The prototype and the definition of a function that does what a module does; `called` names buffers."""
        called = {} if called is None else called
        statements = pruned(module.body)
        self._functions_of(statements)  # their names come first, so that no buffer hides a function
        scope = Scope(Names(self.names))
        read_only = ("input", "constant")
        parameters = [
            f"{'const ' if b.role in read_only else ''}{C_TYPES[b.dtype]} *{scope.declare(b, called.get(b, b.name))}"
            for b in module.buffers
        ]
        parameters += [f"int64_t {scope.declare(s, s.name)}" for s in module.sizes]
        head = f"{'static ' if static else ''}void {name}({', '.join(parameters) or 'void'})"
        lines = Lines()
        with lines.block(head):
            start = len(lines.done)
            Block(lines, scope, self.helpers, self._called).write(statements)
            given: tuple[Buffer | Size, ...] = (*module.buffers, *module.sizes)
            lines.done[start:start] = [f"    (void){scope.name(x)};" for x in given if x not in scope.used]
        return "\n".join(wrapped(head)), lines.done

    def text(self, head: Sequence[str], tail: Sequence[str], includes: Sequence[str] = ()) -> str:
        """The whole text: `head`, the headers, helpers and kernels, and what comes after them."""
        helpers = list(self.helpers.used.values())
        headers = {"stdint.h", *includes}
        headers |= {"math.h"} if self.helpers.mathematics else set()
        headers |= {"string.h"} if any("memcpy(" in t for t in helpers) else set()
        included = "\n".join(f"#include <{h}>" for h in sorted(headers))
        top = "\n".join([*head, included])
        return "\n\n".join([top, *helpers, *self._texts, *tail]) + "\n"

    def _functions_of(self, body: Sequence[Statement]) -> None:
        """Write the functions that statements call."""
        for s in body:
            if isinstance(s, (Run, Contract)):
                self._called(s)
            for inner in (s.body,) if isinstance(s, Repeat) else s.bodies if isinstance(s, (Branch, Sections)) else ():
                self._functions_of(inner)

    def _called(self, s: Run | Contract) -> tuple[str, Sequence[Part], Sequence[Index]]:
        run = self._contractions.run(s) if isinstance(s, Contract) else s
        key = (run.kernel, tuple([p.buffer.dtype for p in run.parts]))
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = self._kernel(*key)
        return function.name, [run.parts[n] for n in function.parameters], [run.sizes[n] for n in function.sizes]

    def _kernel(self, kernel: Kernel, stored: Sequence[str]) -> _Function:
        """The function of a kernel for buffers whose memory holds numbers of the types `stored`, which is written."""
        body = pruned(kernel.body)
        body = body if kernel.axis is None else (Loop(kernel.axis, body),)
        used: set[Buffer | Size] = {*buffers(body), *sizes(body)}
        kept = tuple([n for n, b in enumerate(kernel.parameters) if b in used])
        kept_sizes = tuple([n for n, s in enumerate(kernel.sizes) if s in used])
        name = self.names.fresh(kernel.name)
        scope = Scope(Names(self.names))
        changed = written(body)
        parameters = [
            _parameter(b, stored[n], b in changed, scope) for n, b in enumerate(kernel.parameters) if n in kept
        ]
        parameters += [f"int64_t {scope.declare(s, s.name)}" for s in [kernel.sizes[n] for n in kept_sizes]]
        lines = Lines()
        lines.comment(kernel.comment)
        with lines.block(f"static void {name}({', '.join(parameters) or 'void'})"):
            for b in kernel.locals:
                if b in used:
                    lines.add(f"{C_TYPES[b.dtype]} {scope.declare(b, b.name)}[{b.size}];")
            Block(lines, scope, self.helpers, self._called).write(body)
        self._texts.append("\n".join(lines.done))
        return _Function(name, kept, kept_sizes)


def _parameter(b: Buffer, dtype: str, changed: bool, scope: Scope) -> str:
    name = scope.declare_buffer(b, dtype)
    return f"{'' if changed else 'const '}{C_TYPES[dtype]} *restrict {name}"
