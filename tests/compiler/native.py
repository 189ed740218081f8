"""Lowered programs with their code in LLVM's language, written by hand."""

import os
import subprocess
import sys

import numpy as np

from fnflare.compiler.lowered import Lowered, Output
from fnflare.nest import Buffer, Module, Size, index, product

TYPES = {"f64": "double", "f32": "float", "i64": "i64", "b1": "i8"}


def buffer(name, dtype, size, role):
    return Buffer(name, dtype, index(size), role)


def lowered(inputs, outputs, body=(), scratch=(), constants=(), sizes=(), order=None, unread=()):
    """A lowered program; `scratch` holds buffers with their first and last statement."""
    made = [o.source for o in outputs if isinstance(o.source, Buffer)]
    buffers = [*inputs, *[b for b, _ in constants], *dict.fromkeys(made), *[b for b, _, _ in scratch]]
    buffers = [b for b in buffers if b not in unread]
    module = Module("program", tuple(order or buffers), tuple(s for s, _, _ in sizes), (), tuple(body))
    return Lowered(
        module, tuple(inputs), tuple(constants), tuple(outputs), {b: (f, t) for b, f, t in scratch}, tuple(sizes)
    )


def entry(body):
    return f"define void @main(ptr %buffers, ptr %sizes) {{\n{body}\n}}\n"


def pointer(number):
    return f"""  %at{number} = getelementptr ptr, ptr %buffers, i64 {number}
  %p{number} = load ptr, ptr %at{number}"""


def loop(dtype, count, lines):
    """``for i in range(count)``: the lines may read %i."""
    return f"""  br label %head
head:
  %i = phi i64 [0, %entry], [%next, %head]
{lines}
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, {count}
  br i1 %done, label %end, label %head
end:
"""


def scale_text(count, dtype="f64", number=2.0, sizes=False):
    """``buffers[1][i] = number * buffers[0][i]``, through scratch memory in ``buffers[2]``."""
    t = TYPES[dtype]
    length = "  %n = load i64, ptr %sizes\n" if sizes else ""
    lines = f"""  %q0 = getelementptr {t}, ptr %p0, i64 %i
  %x = load {t}, ptr %q0
  %y = fmul {t} %x, {number!r}
  %q2 = getelementptr {t}, ptr %p2, i64 %i
  store {t} %y, ptr %q2
  %z = load {t}, ptr %q2
  %q1 = getelementptr {t}, ptr %p1, i64 %i
  store {t} %z, ptr %q1"""
    start = "entry:\n" + "\n".join(map(pointer, range(3))) + "\n" + length
    return entry(start + loop(dtype, "%n" if sizes else count, lines) + "  ret void")


def scale(shape, dtype="f64", number=2.0):
    """The program ``number * x`` and its text."""
    size = int(np.prod(shape))
    x, y, s = (buffer(n, dtype, size, r) for n, r in (("x", "input"), ("y", "output"), ("s", "scratch")))
    out = Output(y, tuple(map(index, shape)), np.dtype({"f64": np.float64, "f32": np.float32}[dtype]))
    return lowered([x], [out], scratch=[(s, 0, 1)]), scale_text(size, dtype, number)


def scale_any_length(width):
    """The program ``2 * x`` for x of shape (n, width), n a size."""
    n = Size("n")
    shape = (index(n), index(width))
    x, y, s = (
        Buffer(name, "f64", product(shape), role) for name, role in (("x", "input"), ("y", "output"), ("s", "scratch"))
    )
    program = lowered([x], [Output(y, shape, np.dtype(np.float64))], scratch=[(s, 0, 1)], sizes=[(n, 0, 0)])
    text = scale_text(0, sizes=True).replace(
        "%n = load i64, ptr %sizes", f"%steps = load i64, ptr %sizes\n  %n = mul i64 %steps, {width}"
    )
    return program, text


def combine_text(types):
    """The sum, as a double, of the first elements of all buffers but the last, stored in the last."""
    lines, total = [], "0.0"
    for i, t in enumerate(types):
        lines.append(pointer(i))
        lines.append(f"  %v{i} = load {TYPES[t]}, ptr %p{i}")
        convert = {"f64": None, "f32": "fpext float", "i64": "sitofp i64", "b1": "uitofp i8"}[t]
        value = f"%v{i}"
        if convert:
            lines.append(f"  %d{i} = {convert} %v{i} to double")
            value = f"%d{i}"
        lines.append(f"  %t{i} = fadd double {total}, {value}")
        total = f"%t{i}"
    lines.append(pointer(len(types)))
    lines.append(f"  store double {total}, ptr %p{len(types)}\n  ret void")
    return entry("\n".join(lines))


def combine(types):
    """The program that adds up numbers of these types, and its text."""
    inputs = [buffer(f"x{i}", t, 1, "input") for i, t in enumerate(types)]
    out = buffer("out", "f64", 1, "output")
    return lowered(inputs, [Output(out, (), np.dtype(np.float64))]), combine_text(types)


def python(code):
    """What a fresh interpreter prints."""
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
