"""Loop nests as C: every statement compiles without a warning and computes what it says, and the text reads well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product as combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_compiler import build, call, empty, needs_cc
from drawing import Draws

from fnflare.compiler.c99 import render
from fnflare.compiler.c99.layout import WIDTH, comment, wrapped
from fnflare.compiler.c99.names import Names
from fnflare.errors import ArgumentError, UnsupportedError
from fnflare.nest import (
    DTYPES,
    Accumulator,
    Apply,
    Axis,
    Branch,
    Buffer,
    Contract,
    ContractLoop,
    Element,
    Index,
    Integer,
    Kernel,
    Let,
    Local,
    Loop,
    Module,
    Part,
    Position,
    Repeat,
    Run,
    Scalar,
    Sections,
    Size,
    Statement,
    Store,
    Update,
    apply,
    cast,
    constant,
    index,
)

Array = np.ndarray[Any, Any]
generator = Draws(0)


def buffer(name: str, dtype: str, size: Index | int, role: str = "parameter") -> Buffer:
    return Buffer(name, dtype, index(size), role)


def element(b: Buffer, at: Index | int) -> Element:
    return Element(b.dtype, b, index(at))


def whole(*buffers: Buffer) -> tuple[Part, ...]:
    return tuple([Part(b, index(0)) for b in buffers])


def module(buffers: Sequence[Buffer], body: Sequence[Statement], sizes: Sequence[Size] = ()) -> Module:
    kernels = {s.kernel: None for s in body if isinstance(s, Run)}
    return Module("example", tuple(buffers), tuple(sizes), tuple(kernels), tuple(body))


def of_kernel(kernel: Kernel, *parts: Part) -> Module:
    """A module that runs one kernel on buffers of its own."""
    run = Run(kernel, parts or whole(*kernel.parameters), tuple([index(s) for s in kernel.sizes]))
    buffers = tuple([p.buffer for p in run.parts])
    return module(buffers, [run], kernel.sizes)


def run(m: Module, folder: Path, *args: Any) -> str:
    """Compile a module as every standard compiler would, and as fast as can be, and call it; its text."""
    text = render(m, "example")
    build(text, folder, ["-O0"], "plain")
    call(build(text, folder), "example", *args)
    return text


def softmax_rows() -> Kernel:
    n, m = Size("n"), Size("m")
    i, j = Axis("row", index(n)), Axis("column", index(m))
    x, y = buffer("x", "f32", 0), buffer("y", "f32", 0)
    at = index(i) * index(m) + index(j)
    e = apply("exp", element(x, at) - Local("f32", "largest"))
    scaled = Store(y, at, element(y, at) * Local("f32", "scale"))
    body = (
        Accumulator("largest", "maximum", "f32"),
        Loop(j, (Update("largest", element(x, at)),), vector=True),
        Accumulator("total", "add", "f32"),
        Loop(j, (Store(y, at, e), Update("total", e)), vector=True),
        Let("scale", 1.0 / Local("f32", "total")),
        Loop(j, (scaled,), vector=True),
    )
    line = "model.py:12, attention: weights = ff.nn.softmax(scores) /* by rows */"
    return Kernel("softmax_rows", (x, y), (n, m), i, body, comment=(line,))


# -- statements in kernels ----------------------------------------------------------------------------


@needs_cc
def test_softmax(tmp_path: Path) -> None:
    x, y = generator.standard_normal((5, 37)).astype(np.float32), empty((5, 37), np.float32)
    run(of_kernel(softmax_rows()), tmp_path, x, y, 5, 37)
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=3e-6)


def test_text_reads_as_it_was_written() -> None:
    text = render(of_kernel(softmax_rows()), "attention")
    assert "for (int64_t row = 0; row < n; row++) {" in text
    assert "for (int64_t column = 0; column < m; column++) {" in text
    assert "largest = maximum_f32(largest, x[row * m + column]);" in text
    assert "y[row * m + column] *= scale;" in text
    assert "/* model.py:12, attention: weights = ff.nn.softmax(scores) / * by rows * / */" in text
    # shared, so computed once
    assert len(re.findall(r"expf\(", text)) == 1
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\n\n\n" not in text and not re.search(r"[ \t]$", text, re.MULTILINE)


@needs_cc
@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulators(dtype: str, tmp_path: Path) -> None:
    ops = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}
    ops |= {} if dtype[0] == "f" else {"and": "bitwise_and", "or": "bitwise_or"}
    x, y = buffer("x", dtype, 0), buffer("y", dtype, 0)
    i, rows = Axis("i", index(7)), Axis("r", index(3))
    at = index(rows) * 7 + index(i)
    declared = [Accumulator(f"total_{op}", op, dtype) for op in ops]
    updates = tuple([Update(f"total_{op}", element(x, at)) for op in ops])
    stores = [Store(y, index(rows) * len(ops) + k, Local(dtype, f"total_{op}")) for k, op in enumerate(ops)]
    kernel = Kernel("totals", (x, y), (), rows, (*declared, Loop(i, updates), *stores))
    a = generator.integers(0, 2 if dtype == "b1" else 5, (3, 7)).astype(DTYPES[dtype])
    out = empty((3, len(ops)), DTYPES[dtype])
    run(of_kernel(kernel), tmp_path, a, out)
    with np.errstate(over="ignore"):
        names = {"add": np.add, "multiply": np.multiply, "and": np.bitwise_and, "or": np.bitwise_or}
        wanted = [{**names, "maximum": np.maximum, "minimum": np.minimum}[op].reduce(a, axis=1) for op in ops]
    np.testing.assert_array_equal(out, np.stack(wanted, 1).astype(a.dtype))


@needs_cc
def test_what_nobody_reads_is_left_out(tmp_path: Path) -> None:
    x, y, unused = buffer("x", "f32", 0), buffer("y", "f32", 0), buffer("unused", "f32", 0)
    i, n, lost = Axis("i", index(Size("n"))), Size("n"), Size("lost")
    body = (
        Let("first", element(x, index(i)) * 2.0),
        Let("second", Local("f32", "first") + 1.0),
        Accumulator("total", "add", "f32"),
        Loop(Axis("j", index(3)), (Update("total", element(x, index(i))),)),
        Store(y, index(i), element(x, index(i))),
    )
    kernel = Kernel("copy", (x, y, unused), (n, lost), i, body)
    a, out = np.arange(4, dtype=np.float32), empty(4, np.float32)
    text = run(of_kernel(kernel), tmp_path, a, out, a, 4, 9)
    np.testing.assert_array_equal(out, a)
    assert "first" not in text and "total" not in text and "(void)unused;" in text


@needs_cc
def test_values_are_computed_once_even_where_their_sources_change(tmp_path: Path) -> None:
    # a step with momentum: what is stored first is read by the second store as it was computed
    m, p, g = (buffer(name, "f32", 0) for name in "mpg")
    n, i = Size("n"), Axis("i", index(Size("n")))
    velocity = element(m, index(i)) * 0.5 + element(g, index(i))
    body = (Store(m, index(i), velocity), Store(p, index(i), element(p, index(i)) - velocity * 0.25))
    kernel = Kernel("step", (m, p, g), (n,), i, body, vector=True)
    a, b, c = (generator.standard_normal(9).astype(np.float32) for _ in range(3))
    wanted = a * np.float32(0.5) + c
    expected = b - wanted * np.float32(0.25)
    text = run(of_kernel(kernel), tmp_path, a, b, c, 9)
    np.testing.assert_array_equal(a, wanted)
    np.testing.assert_array_equal(b, expected)
    assert "p[i] -= t0 * 0.25f;" in text


@needs_cc
def test_indices_that_are_computed(tmp_path: Path) -> None:
    # a gather, a reshape that leaves quotients, a position as a number, a negative stride
    table, which, y = buffer("table", "f32", 0), buffer("which", "i32", 0), buffer("y", "f32", 0)
    n, i = Size("n"), Axis("i", index(12))
    at = index(Integer(element(which, index(i) // 5))) * 4 + (index(i) % 5) % 4
    value = element(table, at) + cast(Position("i64", index(i) // 5 * 3 - index(i)), "f32")
    kernel = Kernel("gather", (table, which, y), (n,), i, (Store(y, 11 - index(i), value),))
    t = generator.standard_normal((6, 4)).astype(np.float32)
    w, out = np.array([3, 0, 5], np.int32), empty(12, np.float32)
    run(of_kernel(kernel), tmp_path, t, w, out, 12)
    k = np.arange(12)
    np.testing.assert_array_equal(out[::-1], t[w[k // 5], k % 5 % 4] + (k // 5 * 3 - k).astype(np.float32))


@needs_cc
def test_local_buffers_and_names_that_c_has_taken(tmp_path: Path) -> None:
    x, y, row = buffer("float", "f64", 0), buffer("exp", "f64", 0), buffer("x-y", "f64", 8, "local")
    i, j, k = Axis("i", index(Size("int"))), Axis("for", index(8)), Axis("for", index(8))
    size = Size("int")
    at = index(i) * 8
    body = (
        Loop(j, (Store(row, index(j), apply("exp", element(x, at + index(j)))),)),
        Loop(k, (Store(y, at + index(k), element(row, 7 - index(k))),)),
    )
    kernel = Kernel("double", (x, y), (size,), i, body, locals=(row,))
    a, out = generator.standard_normal((3, 8)), empty((3, 8), np.float64)
    run(of_kernel(kernel), tmp_path, a, out, 3)
    np.testing.assert_allclose(out, np.exp(a)[:, ::-1], rtol=1e-15)


@needs_cc
def test_parameters_read_bits_of_buffers_of_other_types(tmp_path: Path) -> None:
    p, i = buffer("p", "u32", 0), Axis("i", index(6))
    flip = Kernel("flip", (p,), (), i, (Store(p, index(i), element(p, index(i)) ^ 0x80000000),))
    x = buffer("x", "f32", 6, "output")
    a = generator.standard_normal(6).astype(np.float32)
    wanted = -a
    run(of_kernel(flip, Part(x, index(0))), tmp_path, a)
    np.testing.assert_array_equal(a, wanted)


def test_bits_of_another_width_are_refused() -> None:
    x = buffer("x", "f64", 0)
    i = Axis("i", index(2))
    kernel = Kernel("k", (x,), (), i, (Store(x, index(i), Apply("f64", "bits", (constant(1, "u32"),))),))
    with pytest.raises(UnsupportedError, match="bits of u32"):
        render(of_kernel(kernel), "example")


@needs_cc
def test_long_expressions_are_broken_or_named(tmp_path: Path) -> None:
    x, y, i = buffer("the_first_of_the_inputs", "f64", 0), buffer("y", "f64", 0), Axis("position", index(3))
    value: Scalar = element(x, index(i))
    for k in range(300):
        value = value * 0.5 + Element("f64", x, index(i) * 0 + k % 3)
    kernel = Kernel("long", (x, y), (), i, (Store(y, index(i), value),))
    a, out = generator.standard_normal(3), empty(3, np.float64)
    text = run(of_kernel(kernel), tmp_path, a, out)
    wanted = a.copy()
    for k in range(300):
        wanted = wanted * 0.5 + a[k % 3]
    np.testing.assert_array_equal(out, wanted)
    assert max(map(len, text.splitlines())) <= WIDTH


# -- statements of a module's body --------------------------------------------------------------------


def scaled_by(factor: float) -> Kernel:
    x, y, i = buffer("x", "f32", 0), buffer("y", "f32", 0), Axis("i", index(4))
    return Kernel("scale", (x, y), (), i, (Store(y, index(i), element(x, index(i)) * factor),))


@needs_cc
def test_repeat_counts_and_waits(tmp_path: Path) -> None:
    steps = Size("steps")
    x, y, go = buffer("x", "f32", 4, "input"), buffer("y", "f32", index(steps) * 4, "output"), buffer("go", "b1", 1)
    count = buffer("count", "i64", 1)
    t, forever = Axis("t", index(steps)), Axis("turn", index(1))
    p, q = buffer("go", "b1", 0), buffer("count", "i64", 0)
    more = (Store(q, index(0), element(q, 0) + 3), Store(p, index(0), element(q, 0) < 20))
    turn = Kernel("turn", (p, q), (), None, more)
    start = Kernel(
        "start", (p, q), (), None, (Store(p, index(0), constant(True, "b1")), Store(q, index(0), constant(0, "i64")))
    )
    body = [
        Repeat(
            t, (Run(scaled_by(2.0), (Part(x, index(0)), Part(y, index(t) * 4)), ()),), comment=("model.py:3: scan",)
        ),
        Run(start, whole(go, count), ()),
        Repeat(forever, (Run(turn, whole(go, count), ()),), condition=Part(go, index(0))),
    ]
    a, out, flag, counted = (
        np.arange(4, dtype=np.float32),
        empty((3, 4), np.float32),
        empty(1, bool),
        empty(1, np.int64),
    )
    text = run(module([x, y, go, count], body, [steps]), tmp_path, a, out, flag, counted, 3)
    np.testing.assert_array_equal(out, np.tile(a * 2, (3, 1)))
    assert counted[0] == 21 and not flag[0]
    assert "for (int64_t t = 0; t < steps; t++) {" in text and "while (go[0]) {" in text
    assert "/* model.py:3: scan */" in text


@needs_cc
def test_branch_takes_the_nearest_and_sections_are_all_done(tmp_path: Path) -> None:
    which, x = buffer("which", "i64", 1, "input"), buffer("x", "f32", 4, "input")
    y, z = buffer("y", "f32", 4, "output"), buffer("z", "f32", 4, "output")
    kernels = [scaled_by(f) for f in (2.0, 3.0, 5.0)]
    bodies = tuple([(Run(k, whole(x, y), ()),) for k in kernels])
    both = Sections(((Branch(Part(which, index(0)), bodies),), (Run(kernels[2], whole(x, z), ()),)))
    text = render(module([which, x, y, z], [both]), "example")
    library = build(text, tmp_path)
    a = np.arange(4, dtype=np.float32)
    for number, factor in ((-7, 2), (0, 2), (1, 3), (2, 5), (100, 5)):
        out, other = empty(4, np.float32), empty(4, np.float32)
        call(library, "example", np.array([number]), a, out, other)
        np.testing.assert_array_equal(out, a * factor)
        np.testing.assert_array_equal(other, a * 5)
    assert "switch (clamp_index(which[0], 2)) {" in text
    assert text.count("static void scale") == 3


# -- sums of products ---------------------------------------------------------------------------------


def strides(shape: dict[str, int], letters: str, swapped: bool) -> dict[str, int]:
    """Of an operand with these axes, the last one or the first one fastest."""
    out, step = dict.fromkeys(shape, 0), 1
    for letter in letters if swapped else reversed(letters):
        out[letter] = step
        step *= shape[letter]
    return out


PRODUCTS = [
    "ik,kj->ij",
    "bik,bkj->bij",
    "k,k->",
    "i,j->ij",
    "ik,k->i",
    "k,kj->j",
    "ikl,klj->ij",
    "bi,bi->bi",
    "bk,bk->b",
]


def contraction(
    spec: str, shape: dict[str, Any], swapped: tuple[bool, bool, bool], parts: Sequence[Part], accumulate: bool
) -> Contract:
    terms = re.split(",|->", spec)
    a, b, out = (strides(shape, t, s) for t, s in zip(terms, swapped, strict=True))
    letters = sorted(set("".join(terms)))
    loops = [ContractLoop(index(shape[x]), index(out[x]), index(a[x]), index(b[x])) for x in letters]
    return Contract(parts[2], parts[0], parts[1], tuple(loops), accumulate, ("model.py:7: y = x @ w",))


@needs_cc
@pytest.mark.parametrize("dtype", ["f32", "f64", "i64"])
def test_sums_of_products(dtype: str, tmp_path: Path) -> None:
    statements: list[Statement] = []
    buffers: list[Buffer] = []
    arrays: list[Array] = []
    wanted: list[tuple[Array, Array]] = []
    shape = {"b": 2, "i": 3, "j": 5, "k": 19, "l": 2}
    for number, (spec, swapped, accumulate) in enumerate(
        combinations(
            PRODUCTS,
            [(False, False, False), (True, False, False), (False, True, False), (True, True, True)],
            (False, True),
        )
    ):
        terms = re.split(",|->", spec)
        made = []
        for t, s in zip(terms, swapped, strict=True):
            a = generator.integers(-9, 9, [shape[x] for x in (t[::-1] if s else t)]).astype(DTYPES[dtype])
            made.append((a, a.T if s else a))
        operands = [buffer(f"v{number}_{k}", dtype, a.size, "output") for k, (a, _) in enumerate(made)]
        statements.append(contraction(spec, shape, swapped, whole(*operands), accumulate))
        buffers += operands
        answer = np.einsum(spec, made[0][1], made[1][1]) + (made[2][1] if accumulate else 0)
        arrays += [a for a, _ in made]
        wanted.append((arrays[-1], answer.T if swapped[2] else answer))
    text = run(module(buffers, statements), tmp_path, *arrays)
    for got, answer in wanted:
        np.testing.assert_array_equal(got, answer)
    assert text.count("model.py:7") == len(statements)


@needs_cc
def test_sums_of_products_of_sizes_given_when_it_runs(tmp_path: Path) -> None:
    n, k = Size("n"), Size("k")
    x, w, y = (
        buffer("x", "f32", index(n) * index(k), "input"),
        buffer("w", "f32", index(k) * 4, "input"),
        buffer("y", "f32", index(n) * 4, "output"),
    )
    loops = (
        ContractLoop(index(n), index(4), index(k), index(0)),
        ContractLoop(index(4), index(1), index(0), index(k)),
        ContractLoop(index(k), index(0), index(1), index(1)),
    )
    s = Contract(*whole(y, x, w), loops)
    text = render(module([x, w, y], [s, replace(s, accumulate=True)], [n, k]), "example")
    library = build(text, tmp_path)
    for rows, width in ((3, 5), (2, 64), (1, 8)):
        a, b = (generator.integers(-9, 9, s).astype(np.float32) for s in ((rows, width), (4, width)))
        out = empty((rows, 4), np.float32)
        call(library, "example", a, b, out, rows, width)
        np.testing.assert_array_equal(out, 2 * (a @ b.T))


def test_a_product_of_matrices_reads_as_one() -> None:
    x, w, y = buffer("x", "f32", 15, "input"), buffer("w", "f32", 20, "constant"), buffer("y", "f32", 12, "output")
    s = contraction("ik,kj->ij", {"i": 3, "j": 4, "k": 5}, (False, False, False), whole(x, w, y), False)
    text = render(module([x, w, y], [s, s]), "dense")
    assert text.count("static void matmul(") == 1
    assert (
        """
    for (int64_t i = 0; i < 3; i++) {
        for (int64_t j = 0; j < 4; j++) {
            out[i * 4 + j] = 0.0f;
        }
        for (int64_t k = 0; k < 5; k++) {
            const float x = a[i * 5 + k];
            for (int64_t j = 0; j < 4; j++) {
                out[i * 4 + j] += x * b[k * 4 + j];
            }
        }
    }
"""
        in text
    )
    assert "    /* model.py:7: y = x @ w */\n    matmul(y, x, w);" in text


# -- names and layout ---------------------------------------------------------------------------------


def test_names_are_identifiers_and_unique() -> None:
    names = Names()
    made = [
        names.fresh(hint) for hint in ("x", "x", "x2", "x", "int", "3d", "weights/kernel", "", "_", "sinf", "add_i32")
    ]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", n) for n in made)
    assert not {"int", "sinf", "add_i32"} & set(made)
    assert Names(names).fresh("x") not in made


@pytest.mark.parametrize("name", ["", "2f", "while", "a-b", "f(x)", "exp"])
def test_functions_have_names_of_c(name: str) -> None:
    with pytest.raises(ArgumentError, match="identifier"):
        render(module([], []), name)


def test_comments_stay_comments() -> None:
    (line,) = comment(["a */ b /* c \u202e ??/"])
    assert line == "/* a * / b / * c   ?? / */"
    assert comment([]) == []


def test_lines_are_broken_at_operators_and_commas() -> None:
    line = "    y = " + " + ".join(f"f(a{k}, b{k})" for k in range(20)) + ";"
    pieces = wrapped(line)
    assert all(len(p) <= WIDTH for p in pieces) and all(p.strip().startswith("+ ") for p in pieces[1:])
    assert " ".join(p.strip() for p in pieces) == line.strip()
