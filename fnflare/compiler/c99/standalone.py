"""A library of C for inference that stands alone: a header and a source with everything in them, or a file of weights.

What lowering made of a program goes in; the files come out. The library depends on nothing but the C library; it
allocates nothing, for the caller provides the scratch memory, and several threads may call it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fnflare.compiler.c99.indices import index_text
from fnflare.compiler.c99.layout import Lines, comment, wrapped
from fnflare.compiler.c99.literals import C_TYPES, Level, Text
from fnflare.compiler.c99.names import Names, check_identifier
from fnflare.compiler.c99.render import Unit
from fnflare.compiler.c99.weights import Array, definition, file_of, loader, storage
from fnflare.compiler.c99.workspace import Workspace
from fnflare.compiler.lowered import Lowered
from fnflare.compiler.memory import ALIGNMENT
from fnflare.errors import ArgumentError, UnsupportedError
from fnflare.nest import Buffer, Index, Size, dtype_of, index, product

__all__ = ["standalone"]

_CODES = ("OK", "NULL_POINTER", "BAD_SIZE", "NOT_LOADED", "NO_FILE", "BAD_FILE")


def standalone(
    lowered: Lowered,
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    constants: Literal["inside", "file"] = "inside",
    input_shapes: Sequence[Sequence[Index | int]] | None = None,
    description: Sequence[str] = (),
) -> dict[str, str | bytes]:
    """The files of a library with one function, `name`, that does what a lowered program does.

    The function is given a pointer to each input, a pointer to memory for each output, the sizes that are known only
    when it runs, and scratch memory of as many bytes as ``NAME_workspace`` says; it returns 0, or a number that the
    header names. Arrays are contiguous, the last axis fastest; a truth value is a byte.

    Args:
        lowered: the program.
        name: what the function and the files are called, an identifier of C.
        input_names: what the inputs are called, such as paths in a tree; they are made identifiers.
        output_names: what the outputs are called.
        constants: whether the weights stand in the source ("inside"), or in a file ``NAME.weights`` that
            ``NAME_load`` reads once before the first call ("file").
        input_shapes: the inputs' shapes, for the header's text.
        description: lines for the header's text.

    Returns:
        The files' names and what is in them.

    Raises:
        ArgumentError: if `name` is no identifier of C, or there is not a name for each input and output.
        UnsupportedError: if an output has a dtype, or an operation a type, that C does not have.
    """
    check_identifier(name)
    for what, names, count in (
        ("input_names", input_names, len(lowered.inputs)),
        ("output_names", output_names, len(lowered.outputs)),
    ):
        if len(names) != count:
            raise ArgumentError(f"{what} has {len(names)} names for {count}; give one for each")
    if constants not in ("inside", "file"):
        raise ArgumentError(f"constants is {constants!r}; write 'inside' or 'file'")
    library = _Library(lowered, name, input_names, output_names, constants == "file")
    files: dict[str, str | bytes] = {
        f"{name}.h": library.header(input_shapes, description),
        f"{name}.c": library.source(),
    }
    if library.in_file:
        files[f"{name}.weights"] = file_of(library.arrays)
    return files


class _Library:
    """A library that is being written."""

    def __init__(
        self, lowered: Lowered, name: str, input_names: Sequence[str], output_names: Sequence[str], in_file: bool
    ) -> None:
        self.lowered = lowered
        self.name = name
        module = lowered.module
        taken = [name, *[f"{name}_{x}" for x in ("load", "loaded", "read", "layout", "workspace", "body")]]
        taken += [f"{name.upper()}_{code}" for code in (*_CODES, "H")]
        self.unit = Unit(taken)
        # Names of arrays and of parameters never hide those of functions, whatever is written first.
        self.names = Names(self.unit.names, taken=["workspace", "base", "offsets"])
        self.sizes = {s: self.names.fresh(s.name) for s in module.sizes}
        self.inputs = [self.names.fresh(n) for n in input_names]
        self.outputs = [self.names.fresh(n) for n in output_names]
        self.arrays: list[Array] = []
        # What outputs are copied: what to, what from, and how many elements.
        self.copies: list[tuple[str, str, Index]] = []
        self.pointers: dict[Buffer, str] = dict(zip(lowered.inputs, self.inputs, strict=True))
        self._outputs()
        # Before the arrays have names, so that in the body their names are free.
        _, self._body = self.unit.body(module, f"{name}_body", static=True, called=self.pointers)
        for b, array in lowered.constants:
            self.pointers[b] = self.unit.names.fresh(b.name)
            self.arrays.append((self.pointers[b], b.dtype, array))
        self._copies()
        self.in_file = in_file and bool(self.arrays)
        scratch = [b for b in module.buffers if b.role == "scratch"]
        self.workspace = Workspace(scratch, lowered.lifetimes)
        for b in scratch:
            self.pointers[b] = self.names.fresh(b.name)
        self.scratch = scratch

    def _outputs(self) -> None:
        """The buffers of outputs get the pointers to them."""
        for o, name in zip(self.lowered.outputs, self.outputs, strict=True):
            if isinstance(o.source, Buffer):
                self.pointers.setdefault(o.source, name)

    def _copies(self) -> None:
        """Outputs that are inputs, constants or other outputs are copied from those."""
        for o, name in zip(self.lowered.outputs, self.outputs, strict=True):
            if isinstance(o.source, Buffer):
                source = self.pointers[o.source]
            elif isinstance(o.source, int):
                source = self.inputs[o.source]
            else:
                source = self.unit.names.fresh(f"{name}_value")
                self.arrays.append((source, _machine_type(o.dtype), np.asarray(o.source)))
            if source != name:
                self.copies.append((name, source, product(o.shape)))

    # -- texts ----------------------------------------------------------------------------------------

    def _index(self, i: Index) -> Text:
        return index_text(i, lambda a: Text(self.sizes[a] if isinstance(a, Size) else str(a), Level.PRIMARY))

    def _bytes(self, count: Index, target: str) -> str:
        """The size of an output."""
        text = self._index(count)
        elements = text.text if count.constant is not None else f"(size_t){text.at(Level.UNARY)}"
        return f"{elements} * sizeof *{target}"

    def _size_parameters(self) -> str:
        return ", ".join(f"int64_t {n}" for n in self.sizes.values()) or "void"

    def _prototype(self) -> str:
        parameters = [f"const {C_TYPES[b.dtype]} *{n}" for b, n in zip(self.lowered.inputs, self.inputs, strict=True)]
        types = [C_TYPES[_machine_type(o.dtype)] for o in self.lowered.outputs]
        parameters += [f"{t} *{n}" for t, n in zip(types, self.outputs, strict=True)]
        parameters += [f"int64_t {n}" for n in self.sizes.values()]
        return f"int {self.name}({', '.join([*parameters, 'void *workspace'])})"

    def header(self, input_shapes: Sequence[Sequence[Index | int]] | None, description: Sequence[str]) -> str:
        """The text of NAME.h."""
        name, upper = self.name, self.name.upper()
        loads = f"int {name}_load(const char *path);"
        blocks = [
            comment([f"{name}: {description[0] if description else self.lowered.module.name}", *description[1:]]),
            [f"#ifndef {upper}_H", f"#define {upper}_H", "", "#include <stddef.h>", "#include <stdint.h>"],
            ["#ifdef __cplusplus", 'extern "C" {', "#endif"],
            ["/* What the functions return. */", "enum {", *self._codes(), "};"],
            [*comment([f"Reads the weights, {name}.weights; once, before the first call."]), loads],
            [
                *comment(["The number of bytes of scratch memory that a call needs; it may begin anywhere."]),
                f"size_t {name}_workspace({self._size_parameters()});",
            ],
            [*comment(self._described(input_shapes)), *wrapped(f"{self._prototype()};")],
            ["#ifdef __cplusplus", "}", "#endif"],
            ["#endif"],
        ]
        if not self.in_file:
            del blocks[4]
        return "\n\n".join("\n".join(b) for b in blocks) + "\n"

    def _codes(self) -> list[str]:
        used = _CODES if self.in_file else _CODES[:3]
        return [f"    {self.name.upper()}_{code} = {n}," for n, code in enumerate(used)]

    def _described(self, input_shapes: Sequence[Sequence[Index | int]] | None) -> list[str]:
        """What the function is given, a line each."""
        rows: list[tuple[str, str]] = []
        for k, (b, n) in enumerate(zip(self.lowered.inputs, self.inputs, strict=True)):
            shape = self._shape(input_shapes[k]) if input_shapes is not None else f"{self._index(b.size).text} numbers"
            rows.append((n, f"in, {C_TYPES[b.dtype]}, {shape}"))
        for o, n in zip(self.lowered.outputs, self.outputs, strict=True):
            rows.append((n, f"out, {C_TYPES[_machine_type(o.dtype)]}, {self._shape(o.shape)}"))
        for s, number, axis in self.lowered.sizes:
            rows.append((self.sizes[s], f"the size of {self.inputs[number]} along axis {axis}, at least 1"))
        rows.append(("workspace", f"scratch memory of {self.name}_workspace bytes"))
        width = max(len(n) for n, _ in rows)
        text = "Arrays are contiguous, the last axis fastest. Outputs overlap nothing else. Threads may call it at once"
        return [f"{text},", "each with a workspace of its own.", "", *[f"    {n:{width}}  {t}" for n, t in rows]]

    def _shape(self, shape: Sequence[Index | int]) -> str:
        texts = [self._index(index(n)).text for n in shape]
        return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"

    def source(self) -> str:
        """The text of NAME.c."""
        name, unit = self.name, self.unit
        lines = comment([f"{name}: see {name}.h.", "", f"cc -O3 -march=native -std=c99 -ffp-contract=fast -c {name}.c"])
        define = storage if self.in_file else definition
        tail = ["\n".join(self._body), *[define(*array) for array in self.arrays]]
        if self.in_file:
            tail.append(loader(name, self.arrays))
        tail.append(
            self.workspace.layout(name, list(self.sizes), lambda i: self._index(i).text, self._size_parameters())
        )
        tail.append("\n".join(self._function()))
        includes = ["string.h"] if self.copies or self.in_file else []
        includes += ["stdio.h"] if self.in_file else ["math.h"] if any(t[0] == "f" for _, t, _ in self.arrays) else []
        return unit.text([*lines, f'#include "{name}.h"', ""], tail, includes)

    def _function(self) -> list[str]:
        """The function itself: checks, pointers into the workspace, what is done, and copies."""
        upper = self.name.upper()
        lines = Lines()
        with lines.block(self._prototype()):
            needed = [self.pointers[b] for b in self.lowered.module.buffers if b.role == "input"]
            needed += [self.inputs[o.source] for o in self.lowered.outputs if isinstance(o.source, int)]
            needed += [*self.outputs, *(["workspace"] if self.scratch else [])]
            unused = [n for n in [*self.inputs, "workspace"] if n not in needed]
            for n in unused:
                lines.add(f"(void){n};")
            if self.in_file:
                lines.add(f"if (!{self.name}_loaded) return {upper}_NOT_LOADED;")
            if needed:
                lines.add(f"if ({' || '.join(f'!{n}' for n in dict.fromkeys(needed))}) return {upper}_NULL_POINTER;")
            if self.sizes:
                lines.add(f"if ({' || '.join(f'{n} < 1' for n in self.sizes.values())}) return {upper}_BAD_SIZE;")
            self._pointers(lines)
            args = [*[self.pointers[b] for b in self.lowered.module.buffers], *self.sizes.values()]
            lines.add(f"{self.name}_body({', '.join(args)});")
            for target, source, count in self.copies:
                lines.add(f"memmove({target}, {source}, {self._bytes(count, target)});")
            lines.add(f"return {upper}_OK;")
        return lines.done

    def _pointers(self, lines: Lines) -> None:
        """The scratch buffers' places in the workspace."""
        if not self.scratch:
            return
        first = f"((uintptr_t)workspace + {ALIGNMENT - 1}) / {ALIGNMENT} * {ALIGNMENT}"
        lines.add(f"unsigned char *const base = (unsigned char *)({first});")
        if self.workspace.places:
            lines.add(f"size_t offsets[{len(self.workspace.places)}];")
            lines.add(f"{self.name}_layout(offsets, {', '.join(self.sizes.values())});")
        for b in self.scratch:
            kind, name = C_TYPES[b.dtype], self.pointers[b]
            lines.add(f"{kind} *const {name} = ({kind} *)(base + {self.workspace.offsets[b]});")


def _machine_type(dtype: np.dtype[Any]) -> str:
    found = dtype_of(dtype)
    if found is None:
        raise UnsupportedError(f"an output is of dtype {dtype}, which C has no type for; cast it with astype first")
    return found
