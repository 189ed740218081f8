"""Statements: loop nests over typed buffers.

A lowered program is a `Module`: buffers, kernels, which are loop nests over them, and a body that runs the kernels,
multiplies matrices and loops over time. Lowering (`fnflare.compiler`) writes it; its two renderers turn it into LLVM
IR, which runs, and into C99, which reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fnflare.nest.index import Axis, Index, Size
from fnflare.nest.scalars import Scalar

__all__ = [
    "Accumulator",
    "Branch",
    "Buffer",
    "Contract",
    "ContractLoop",
    "Kernel",
    "Let",
    "Loop",
    "Module",
    "Part",
    "Repeat",
    "Run",
    "Sections",
    "Statement",
    "Store",
    "Update",
]


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Memory for `size` numbers of a type, one after the other.

    Attributes:
        name: what it is called in print: letters, digits and underscores.
        dtype: one of `fnflare.nest.DTYPES`.
        size: the number of elements; 0 for a parameter, whose size is that of what it is bound to.
        role: "input" and "constant" are read only, "output" is written; "scratch" is memory of the module's own, and
            "parameter" stands in a kernel for the buffer that it is run with. "local" is memory of one kernel, small
            and of a known size, one for each thread.
    """

    name: str
    dtype: str
    size: Index
    role: str


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A buffer from one of its elements on."""

    buffer: Buffer
    start: Index


# -- statements inside kernels ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Let:
    """A name for an expression, computed here: ``Local(name)`` reads it later in this body or in loops in it."""

    name: str
    value: Scalar


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """``buffer[index] = value``."""

    buffer: Buffer
    index: Index
    value: Scalar


@dataclass(frozen=True, slots=True, eq=False)
class Accumulator:
    """A number that `Update` statements in the loops after it combine: begins as the operation's neutral element.

    ``Local(name)`` reads it after those loops. Declared inside a vector loop it is one number for each of the loop's
    turns; declared before one, the turns' contributions are combined when the loop is done, in an order that is fixed
    but not that of the turns.

    Attributes:
        op: "add", "multiply", "maximum", "minimum", "and" or "or".
    """

    name: str
    op: str
    dtype: str


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """``accumulator = op(accumulator, value)``."""

    name: str
    value: Scalar


@dataclass(frozen=True, slots=True, eq=False)
class Loop:
    """``for axis in range(axis.extent): body``.

    Attributes:
        vector: whether several turns may be done at a time, in the lanes of a vector: no turn then reads what another
            writes, and the body holds no other vector loop. Loops inside it are plain, and are done for all lanes
            together: neither their extents nor anything about them depends on the lane.
        unroll: whether to write the turns one after the other; the extent is then a small number.
    """

    axis: Axis
    body: tuple[Statement, ...]
    vector: bool = False
    unroll: bool = False


# -- statements of a module's body ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A loop nest that is compiled once and run with different buffers and sizes.

    Attributes:
        name: what it is called in print.
        parameters: the buffers it is given; two of them never overlap unless both are only read.
        sizes: the sizes it is given.
        axis: the variable of its outermost loop, whose turns may be shared out among threads; None for a kernel that
            is a body alone.
        body: what is done in each turn of that loop.
        vector: whether that loop is a vector loop, as in `Loop`; the body then holds none.
        locals: memory of its own, of role "local".
        comment: where the user wrote it, a line each.
        work: about how many scalar operations one turn takes, so that little work is not shared out.
    """

    name: str
    parameters: tuple[Buffer, ...]
    sizes: tuple[Size, ...]
    axis: Axis | None
    body: tuple[Statement, ...]
    vector: bool = False
    locals: tuple[Buffer, ...] = ()
    comment: Iterable[str] = ()
    work: Index = field(default_factory=lambda: Index({(): 1}))


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Run a kernel with a part of a buffer for each of its parameters and a number for each of its sizes.

    A part may be of a buffer of another type than the parameter, whose bits are then read as the parameter's type;
    where the part starts is counted in elements of the parameter's type.
    """

    kernel: Kernel
    parts: tuple[Part, ...]
    sizes: tuple[Index, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ContractLoop:
    """One loop of a `Contract`: its extent, and by how many elements each turn moves on in the three operands."""

    extent: Index
    out: Index
    a: Index
    b: Index


@dataclass(frozen=True, slots=True, eq=False)
class Contract:
    """A sum of products: over all turns of all loops, ``out[..] += a[..] * b[..]``.

    Products of matrices, batched, strided and transposed, convolutions and their gradients are all of this form. The
    operands have one type, and `out` overlaps neither of the others. The loops in which `out` stays where it is are
    summed over; over the others no two turns meet in one element of `out`.

    Attributes:
        accumulate: whether the sum is added to what `out` holds; otherwise that is overwritten.
        comment: where the user wrote it, a line each.
    """

    out: Part
    a: Part
    b: Part
    loops: tuple[ContractLoop, ...]
    accumulate: bool = False
    comment: Iterable[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """A loop over time: ``for axis in range(axis.extent): body``, in this order.

    With a `condition` it is a loop that runs while the first element of that part, a truth value, is true, looked at
    before each turn; the extent then means nothing.
    """

    axis: Axis
    body: tuple[Statement, ...]
    condition: Part | None = None
    comment: Iterable[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One of several bodies: that whose number is the first element of `which`, an i64, clamped to those there are."""

    which: Part
    bodies: tuple[tuple[Statement, ...], ...]
    comment: Iterable[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Sections:
    """Bodies that do not depend on each other and may be run by different threads at the same time."""

    bodies: tuple[tuple[Statement, ...], ...]


Statement = Let | Store | Accumulator | Update | Loop | Run | Contract | Repeat | Branch | Sections


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """A lowered program.

    Attributes:
        name: what it is called in print.
        buffers: all buffers of the body, in the order in which the compiled function is given them.
        sizes: the sizes that it is given when it runs.
        kernels: the kernels that the body runs, each once.
        body: what is done.
    """

    name: str
    buffers: tuple[Buffer, ...]
    sizes: tuple[Size, ...]
    kernels: tuple[Kernel, ...]
    body: tuple[Statement, ...]
