"""A module's body: runs of kernels, products of matrices, loops over time, branches and sections, as one function.

Where there is enough work in the turns of a kernel's outermost loop they are shared out among threads: the run is then
a call of ``@share`` with an outlined function and what that needs, in memory. Sections are shared out in the same way,
one body a turn, and find the module's buffers and the loops' variables in that memory.
"""

from __future__ import annotations

from fnflare.compiler.llvm.contract import contraction
from fnflare.compiler.llvm.expressions import Expressions
from fnflare.compiler.llvm.kernels import render_kernel
from fnflare.compiler.llvm.target import Target
from fnflare.compiler.llvm.writer import Library
from fnflare.nest import (
    Atom,
    Axis,
    Branch,
    Buffer,
    Contract,
    Index,
    Kernel,
    Module,
    Part,
    Repeat,
    Run,
    Sections,
    Size,
    Statement,
    nonnegative,
)

__all__ = ["THRESHOLD", "Program", "render_body"]

#: How many scalar operations a thread has to do at least; below that, waking it takes longer than the work.
THRESHOLD = 20_000


class Program:
    """What the functions of one module share.

    Attributes:
        kernels: the name of each kernel's function.
        threads: whether work is shared out among threads.
        blas: whether BLAS does large products of matrices.
        shared: the kernels whose turns may be shared out.
    """

    def __init__(self, module: Module, library: Library, target: Target, threads: bool, blas: bool = False) -> None:
        self.module, self.library, self.target, self.threads = module, library, target, threads
        self.blas = blas
        self.buffers = {b: i for i, b in enumerate(module.buffers)}
        self.sizes = {s: i for i, s in enumerate(module.sizes)}
        self.kernels: dict[Kernel, str] = {}
        self.shared: set[Kernel] = set()
        for i, k in enumerate(module.kernels):
            if threads and k.axis is not None and _much((k.axis.extent * k.work).constant):
                self.shared.add(k)
            self.kernels[k] = f"kernel.{i}"  # what it is called elsewhere depends on the layer
            library.definitions[self.kernels[k]] = render_kernel(k, self.kernels[k], library, target, k in self.shared)


def render_body(program: Program, name: str) -> str:
    """The function that does all that a module's body says."""
    writer = _Body(program, "%buffers", "%sizes", {})
    writer.write(program.module.body)
    return writer.text(f"define void @{name}(ptr %buffers, ptr %sizes) nounwind")


class _Pointers(dict[Buffer, str]):
    """Where the module's buffers begin: each is asked for once, at the beginning of the function."""

    def __init__(self, program: Program, base: str, entry: list[str]) -> None:
        super().__init__()
        self._program, self._base, self._entry = program, base, entry

    def __missing__(self, buffer: Buffer) -> str:
        number, name = self._program.buffers[buffer], f"%p{len(self)}"
        self._entry.append(f"  {name}.at = getelementptr inbounds ptr, ptr {self._base}, i64 {number}")
        self._entry.append(f"  {name} = load ptr, ptr {name}.at")
        self[buffer] = name
        return name


class _Sizes(dict[Size | Axis, str]):
    """What the module's sizes are, likewise."""

    def __init__(self, program: Program, base: str, entry: list[str]) -> None:
        super().__init__()
        self._program, self._base, self._entry = program, base, entry

    def __missing__(self, size: Size | Axis) -> str:
        if isinstance(size, Axis):
            raise KeyError(f"the variable {size.name} is used outside of its loop")
        number, name = self._program.sizes[size], f"%s{len(self)}"
        self._entry.append(f"  {name}.at = getelementptr inbounds i64, ptr {self._base}, i64 {number}")
        self._entry.append(f"  {name} = load i64, ptr {name}.at")
        self[size] = name
        return name


class _Body(Expressions):
    """A function that runs a body.

    Args:
        program: the module it belongs to.
        buffers: where it finds the pointers to the buffers.
        sizes: where it finds the sizes.
        axes: the variables of the loops around it.
    """

    def __init__(self, program: Program, buffers: str, sizes: str, axes: dict[Axis, str]) -> None:
        super().__init__(program.library, program.target)
        self.program, self.axes = program, axes
        self.places = (buffers, sizes)
        self.pointers = _Pointers(program, buffers, self.entry)
        self.sizes = _Sizes(program, sizes, self.entry)
        for axis, i in axes.items():
            self.sizes[axis] = i
        self.depths = {a: k for k, a in enumerate(axes, 1)}

    def write(self, body: tuple[Statement, ...]) -> None:
        """Write statements one after the other."""
        for s in body:
            if isinstance(s, Run):
                self._run(s)
            elif isinstance(s, Contract):
                self._contract(s)
            elif isinstance(s, Repeat):
                self._repeat(s)
            elif isinstance(s, Branch):
                self._branch(s)
            elif isinstance(s, Sections):
                self._sections(s)
            else:
                raise TypeError(f"{type(s).__name__} stands in a module's body, not in a kernel")
            self.forget()  # what was read from memory may be other now

    def _part(self, part: Part, dtype: str | None = None) -> str:
        """Where a part begins, its start counted in elements of a type, by default that of the buffer."""
        return self.place(self.pointers[part.buffer], dtype or part.buffer.dtype, self.index(part.start))

    # -- statements -----------------------------------------------------------------------------------

    def _run(self, s: Run) -> None:
        kernel = s.kernel
        name = self.program.kernels[kernel]
        # Where a part starts is counted in elements of the parameter's type, which need not be the buffer's.
        pairs = zip(s.parts, kernel.parameters, strict=True)
        arguments = [f"ptr {self._part(part, parameter.dtype)}" for part, parameter in pairs]
        arguments += [f"i64 {self.index(i)}" for i in s.sizes]
        if kernel.axis is None or kernel not in self.program.shared:
            self.lines.append(f"  call void @{name}({', '.join(arguments)})")
            return
        sizes: dict[Atom, Index] = dict(zip(kernel.sizes, s.sizes, strict=True))
        extent, work = kernel.axis.extent.replace(sizes), kernel.work.replace(sizes)
        if not _much((extent * work).constant):
            arguments += ["i64 0", f"i64 {self.index(extent)}"]
            self.lines.append(f"  call void @{name}({', '.join(arguments)})")
            return
        self._outline(kernel, name)
        self._share(f"{name}.turns", arguments, self.index(extent), self._least(work))

    def _least(self, work: Index) -> str:
        """How many turns a thread has to do at least."""
        if work.constant is not None:
            return str(-(-THRESHOLD // max(work.constant, 1)))
        number = self.index(work)
        return self.emit(f"udiv i64 {self.plus(number, str(THRESHOLD - 1))}, {number}")

    def _outline(self, kernel: Kernel, name: str) -> None:
        """A function that takes a kernel's arguments from memory."""
        arguments = [*["ptr"] * len(kernel.parameters), *["i64"] * len(kernel.sizes)]
        calls = [*[f"{T} %a{k}" for k, T in enumerate(arguments)], "i64 %begin", "i64 %end"]
        text = [_loads("%context", arguments), f"  call void @{name}({', '.join(calls)})", "  ret void", "}", ""]
        head = f"define internal void @{name}.turns(ptr %context, i64 %begin, i64 %end) nounwind {{"
        self.library.definitions[f"{name}.turns"] = "\n".join([head, *text])

    def _share(self, function: str, arguments: list[str], extent: str, least: str) -> None:
        """Run an outlined function over turns, shared out among threads."""
        context = f"%context{len(self.entry)}"
        self.entry.append(f"  {context} = alloca [{max(len(arguments), 1)} x i64], align 16")
        for k, argument in enumerate(arguments):
            self.lines.append(f"  store {argument}, ptr {self._slot(context, k)}")
        self.lines.append(f"  call void @share(ptr @{function}, ptr {context}, i64 {extent}, i64 {least})")

    def _slot(self, context: str, k: int) -> str:
        return self.emit(f"getelementptr inbounds i64, ptr {context}, i64 {k}")

    def _contract(self, s: Contract) -> None:
        made = contraction(s, self.program.blas)
        self.library.definitions.setdefault(made.name, made.definition)
        for function in made.declarations:
            self.library.declarations[function] = None
        arguments = [f"ptr {self._part(p)}" for p in (s.out, s.a, s.b)]
        arguments += [f"i64 {self.index(i)}" for i in made.sizes]
        self.lines.append(f"  call void @{made.name}({', '.join(arguments)})")

    def _repeat(self, s: Repeat) -> None:
        if s.condition is not None:
            self._while(s, s.condition)
            return
        extent = s.axis.extent

        def turn(i: str) -> None:
            self._bind(s.axis, i)
            self.write(s.body)
            self._release(s.axis)

        if extent.constant != 0:
            end = self.index(extent)
            self.forget()
            self.repeat("0", end, 1, (), turn, certain=nonnegative(extent - 1))

    def _bind(self, axis: Axis, i: str) -> None:
        self.sizes[axis] = self.axes[axis] = i
        self.depths[axis] = len(self.axes)

    def _release(self, axis: Axis) -> None:
        """Forget a loop's variable: what sections are handed after the loop must not name it."""
        del self.sizes[axis], self.axes[axis], self.depths[axis]

    def _while(self, s: Repeat, condition: Part) -> None:
        self.forget()
        head, turn, after = self.label(), self.label(), self.label()
        before = self.block
        self.jump(head)
        self.start(head)
        i = self.fresh()
        hole = len(self.lines)
        self.lines.append("")
        self._bind(s.axis, i)
        self.enter()
        held = self.emit(f"load i8, ptr {self._part(condition)}")
        self.lines.append(f"  br i1 {self.emit(f'icmp ne i8 {held}, 0')}, label %{turn}, label %{after}")
        self.start(turn)
        self.write(s.body)
        self._release(s.axis)
        self.leave()
        following = self.emit(f"add nuw nsw i64 {i}, 1")
        self.lines[hole] = f"  {i} = phi i64 [ 0, %{before} ], [ {following}, %{self.block} ]"
        self.jump(head)
        self.start(after)

    def _branch(self, s: Branch) -> None:
        which = self.emit(f"load i64, ptr {self._part(s.which)}")
        low = self.intrinsic("smax", "i64", which, "0")
        number = self.intrinsic("smin", "i64", low, str(len(s.bodies) - 1))
        labels, after = [self.label() for _ in s.bodies], self.label()
        cases = " ".join([f"i64 {k}, label %{b}" for k, b in enumerate(labels[:-1])])
        self.lines.append(f"  switch i64 {number}, label %{labels[-1]} [ {cases} ]")
        self._cases(labels, s.bodies, after)

    def _cases(self, labels: list[str], bodies: tuple[tuple[Statement, ...], ...], after: str) -> None:
        for label, body in zip(labels, bodies, strict=True):
            self.start(label)
            self.enter()
            self.write(body)
            self.leave()
            self.jump(after)
        self.start(after)

    def _sections(self, s: Sections) -> None:
        program = self.program
        if not program.threads or len(s.bodies) < 2:
            for body in s.bodies:
                self.write(body)
            return
        name = f"sections.{len(self.library.definitions)}"
        self.library.definitions[name] = ""  # its place
        axes = list(self.axes)
        values = [f"i64 {self.axes[a]}" for a in axes]
        slots = ["ptr", "ptr", *["i64"] * len(axes)]
        inner = _Body(program, "%a0", "%a1", {a: f"%a{k}" for k, a in enumerate(axes, 2)})
        inner.entry.append(_loads("%context", slots))
        inner.alternatives(s.bodies)
        head = f"define internal void @{name}(ptr %context, i64 %begin, i64 %end) nounwind"
        self.library.definitions[name] = inner.text(head)
        buffers, sizes = self.places
        self._share(name, [f"ptr {buffers}", f"ptr {sizes}", *values], str(len(s.bodies)), "1")

    def alternatives(self, bodies: tuple[tuple[Statement, ...], ...]) -> None:
        """Write ``for i in range(begin, end): bodies[i]``."""

        def turn(i: str) -> None:
            labels, after = [self.label() for _ in bodies], self.label()
            cases = " ".join([f"i64 {k}, label %{b}" for k, b in enumerate(labels[:-1])])
            self.lines.append(f"  switch i64 {i}, label %{labels[-1]} [ {cases} ]")
            self._cases(labels, bodies, after)

        self.repeat("%begin", "%end", 1, (), turn, certain=False)


def _much(work: int | None) -> bool:
    """Whether there may be enough work for two threads."""
    return work is None or work >= 2 * THRESHOLD


def _loads(context: str, types: list[str]) -> str:
    """Instructions that load what was put into memory for an outlined function, as %a0, %a1, ..."""
    lines = []
    for k, T in enumerate(types):
        lines.append(f"  %a{k}.at = getelementptr inbounds i64, ptr {context}, i64 {k}")
        lines.append(f"  %a{k} = load {T}, ptr %a{k}.at")
    return "\n".join(lines)
