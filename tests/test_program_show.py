"""Programs as people see them: their text, their picture, what a notebook shows, and how they are made by hand."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import textwrap
import types
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import fnflare as ff
from fnflare import errors
from fnflare.core import ShapeDtypeStruct, Source, primitive
from fnflare.core.primitive import _registry
from fnflare.program import Equation, Literal, Program, Var, drawing, run

F32 = np.float32


def text_of(expected: str) -> str:
    return textwrap.dedent(expected).strip("\n")


def mlp(params: Any, x: Any, y: Any) -> Any:
    h = np.tanh(x @ params["w1"] + params["b1"])
    return np.mean((h @ params["w2"] - y) ** 2)


PARAMS = {"w1": np.zeros((5, 4), F32), "b1": np.zeros(4, F32), "w2": np.zeros((4, 2), F32)}
X, Y = np.zeros((8, 5), F32), np.zeros((8, 2), F32)


# -- text ---------------------------------------------------------------------------------------


def test_the_gradient_of_a_perceptron() -> None:
    assert str(ff.make_program(ff.value_and_grad(mlp))(PARAMS, X, Y)) == text_of(
        """
        program value_and_grad(mlp)(
            params/b1: float32[4],
            params/w1: float32[5,4],
            params/w2: float32[4,2],
            x: float32[8,5],
            y: float32[8,2],
        ):
            a: float32[8,4] = matmul x params/w1
            b: float32[8,4] = add a params/b1
            c: float32[8,4] = tanh b
            d: float32[8,2] = matmul c params/w2
            e: float32[8,2] = subtract d y
            f: float32[8,2] = square e
            g: float32[] = sum[axes=(0, 1) keepdims=False] f
            h: float32[] = divide g 16
            i: float32[8,2] = multiply 2 e
            j: float32[8,2] = multiply (float32[8,2] all 0.0625) i
            k: float32[2,4] = transpose[axes=(1, 0)] params/w2
            l: float32[8,4] = matmul j k
            m: float32[4,8] = transpose[axes=(1, 0)] c
            n: float32[4,2] = matmul m j
            o: float32[8,4] = multiply c c
            p: float32[8,4] = subtract 1 o
            q: float32[8,4] = multiply l p
            r: float32[4] = sum[axes=(0,) keepdims=False] q
            s: float32[4] = reshape[shape=(4,)] r
            t: float32[5,8] = transpose[axes=(1, 0)] x
            u: float32[5,4] = matmul t q
            return h, s, u, n
        """
    )


def test_constants_parameters_and_weak_numbers() -> None:
    def fun(x: Any, i: Any, k: Any) -> Any:
        table = np.arange(16, dtype=F32).reshape(4, 4)
        part = x[i, ..., None, 1:2]
        return [
            part * k,
            table * x,
            x + np.ones(4),
            x * F32(0.1),
            x.astype(F32),
            x[:, ::2],
            x * np.True_,
            3,
            np.zeros(2),
        ]

    program = ff.make_program(fun)(np.ones((4, 4)), np.int64(3), 2.5)
    assert program.text() == text_of(
        """
        program fun(x: float64[4,4], i: int64[], k: float):
            a: float64[1,1] = getitem[index=(i0, ..., None, 1:2)] x i
            b: float64[1,1] = multiply a k
            c: float64[4,4] = multiply (float32[4,4] const) x
            d: float64[4,4] = add x (float64[4] all 1.0)
            e: float64[4,4] = multiply x float32(0.1)
            f: float32[4,4] = convert[dtype=float32] x
            g: float64[4,2] = getitem[index=(:, ::2)] x
            h: float64[4,4] = multiply x True
            return b, c, d, e, f, g, h, 3, (float64[2] all 0.0)
        """
    )


def test_a_function_is_named_without_those_around_it() -> None:
    program = Program([], [], [], "grad(Model.fit.<locals>.<lambda>.<locals>.loss) forward")
    assert str(program).startswith("program grad(loss) forward(")


def test_letters_go_on_after_z_and_leave_out_the_names_of_inputs() -> None:
    def fun(b: Any) -> Any:
        for _ in range(30):
            b = np.sin(b)
        return b

    lines = str(ff.make_program(fun)(1.0)).splitlines()
    assert lines[1:3] == ["    a: float64[] = sin b", "    c: float64[] = sin a"]
    assert lines[25:28] == ["    z: float64[] = sin y", "    aa: float64[] = sin z", "    ab: float64[] = sin aa"]


def test_names_that_would_confuse_are_quoted_or_left_out() -> None:
    assert str(ff.make_program(lambda p: p["a b"] + p["c:"])({"a b": 1.0, "c:": 1.0})) == text_of(
        """
        program <lambda>('p/a b': float, 'p/c:': float):
            a: float64[] = add 'p/a b' 'p/c:'
            return a
        """
    )
    v, w = Var(ShapeDtypeStruct((), F32)), Var(ShapeDtypeStruct((2,), F32))
    assert (
        str(Program([v, w], [], [w], "twice", ["x", "x"]))
        == "program twice(a: float32[], b: float32[2]):\n    return b"
    )


def test_small_and_broken_programs() -> None:
    assert str(Program([], [], [])) == "program():\n    return"
    add = ff.make_program(np.add)(1.0, 2.0).equations[0]
    lost = Var(ShapeDtypeStruct((3,), F32))
    broken = Program([], [add._replace(inputs=(lost, Literal(2)))], add.outputs, "broken")
    assert str(broken) == "program broken():\n    a: float64[] = add ? 2\n    return a"
    assert "?" in broken.dot()


class Settings(NamedTuple):
    size: int
    of: Any


class Opaque:
    """An object whose repr is its address."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.dtype(np.int8), "int8"),
        (np.float32, "float32"),
        (np.tanh, "tanh"),
        (slice(1, None, 2), "1::2"),
        (None, "None"),
        ("ij,jk->ik", "'ij,jk->ik'"),
        (np.arange(3), "(int64[3] const)"),
        (np.int64(3), "3"),
        ([1, (2.5,)], "[1, (2.5,)]"),
        ({"b": 1, "a": slice(3)}, "{'b': 1, 'a': :3}"),
        (frozenset({"b", "a", "c"}), "{'a', 'b', 'c'}"),
        (Settings(1, None), "Settings(size=1, of=None)"),
        (ShapeDtypeStruct((2,), F32), "float32[2]"),
        (text_of, "text_of"),
        (functools.partial(text_of), "partial"),
        (Opaque(), "<tests.test_program_show.Opaque object>"),
        ((ff.make_program(np.sin)(1.0), 3), "(program sin, 3)"),
        ("x" * 200, "'" + "x" * 76 + "..."),
    ],
)
def test_every_parameter_has_a_short_text_without_addresses(value: Any, text: str) -> None:
    (sin,) = ff.make_program(np.sin)(1.0).equations
    program = Program([], [sin._replace(inputs=(Literal(1.0),), params={"value": value})], sin.outputs)
    module = __name__.removeprefix("tests.")
    shown = program.text().replace(f"<{module}.", "<tests.test_program_show.")
    assert f"= sin[value={text}] 1.0\n" in shown


def test_text_is_the_same_each_time() -> None:
    texts = {ff.make_program(ff.grad(mlp))(PARAMS, X, Y).text(lines=True) for _ in range(2)}
    pictures = {ff.make_program(ff.grad(mlp))(PARAMS, X, Y).dot() for _ in range(2)}
    assert len(texts) == len(pictures) == 1


# -- the margin ---------------------------------------------------------------------------------


def test_lines_are_the_users_own() -> None:
    def inner(x: Any) -> Any:
        return np.cos(x)

    def fun(x: Any) -> Any:
        y = np.sin(x)
        z = y * 2
        return inner(z)

    last = fun.__code__.co_firstlineno + 3
    assert ff.make_program(fun)(np.ones(3)).text(lines=True) == text_of(
        f"""
        program fun(x: float64[3]):
            a: float64[3] = sin x         # test_program_show.py:{last - 2}
            b: float64[3] = multiply a 2  # test_program_show.py:{last - 1}
            c: float64[3] = cos b         # test_program_show.py:{last - 5}
            return c
        """
    )


def placed(program: Program, **changes: Any) -> Program:
    """The program with something else in the source of every equation."""
    equations = []
    for equation in program.equations:
        assert equation.source is not None
        equations.append(equation._replace(source=equation.source._replace(**changes)))
    return program.replace(equations=equations)


def test_the_margin_tells_layers_and_phases() -> None:
    program = ff.make_program(lambda x: np.cos(np.sin(x)))(np.ones(3))
    forward = placed(program, path=("encoder", "dense"), phase="forward").equations
    backward = placed(program, path=("encoder",), phase="backward").equations
    rows = program.replace(equations=[forward[0], backward[1]]).text(lines=True).splitlines()
    assert re.fullmatch(r"    a: float64\[3\] = sin x +# test_program_show\.py:\d+  encoder/dense", rows[1])
    assert re.fullmatch(r"    b: float64\[3\] = cos a +# test_program_show\.py:\d+  encoder        backward", rows[2])
    assert rows[0].endswith(":") and rows[3] == "    return b"


def test_files_of_one_name_are_told_apart() -> None:
    def sources(*names: str) -> list[str]:
        (sin,) = ff.make_program(np.sin)(1.0).equations
        codes = [compile("0", name, "exec") for name in names]
        equations = [sin._replace(outputs=(Var(sin.outputs[0].aval),), source=Source(c, 0)) for c in codes]
        text = Program([], equations, []).text(lines=True)
        return re.findall(r"# (.*):\d", text)

    assert sources("/one/model.py", "/two/model.py", "/two/run.py", "<stdin>") == [
        "one/model.py",
        "two/model.py",
        "run.py",
        "<stdin>",
    ]


def test_cells_of_a_notebook_have_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(file: str) -> tuple[str, str] | None:
        return ("Cell", "In[3]") if file == "/tmp/ipykernel_7/42.py" else None

    shell = types.SimpleNamespace(compile=types.SimpleNamespace(format_code_name=shown))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    names: dict[str, Any] = {"np": np}
    exec(compile("def cell(x):\n    return np.sin(x)", "/tmp/ipykernel_7/42.py", "exec"), names)
    program = ff.make_program(lambda x: np.cos(names["cell"](x)))(1.0)
    assert re.findall(r"# (.*):\d", program.text(lines=True)) == ["In[3]", "test_program_show.py"]
    assert str(program.equations[0].source) == "In[3]:2"
    assert "In[3]:2" in str(ff.profile(names["cell"])(np.ones(3)))


# -- programs inside of programs ----------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[Callable[..., Any]]:
    """A primitive with programs among its parameters, gone after the test."""

    def shape(*avals: Any, body: Program, **_: Any) -> tuple[ShapeDtypeStruct, ...]:
        return tuple(body.out_avals)  # type: ignore[arg-type]

    prim = primitive("loop", lambda *args, **_: args, shape, many=True)
    yield prim
    del _registry["loop"]


def nested(loop: Callable[..., Any]) -> Program:
    def step(h: Any, x: Any) -> Any:
        h = np.tanh(h * x)
        return h, h

    h = np.ones(4, F32)
    body = ff.make_program(step)(h, h)
    branches = (ff.make_program(lambda x: x * 2)(h), ff.make_program(lambda x: -x)(h))

    def outer(h: Any, xs: Any) -> Any:
        h, hs = loop(h, np.exp(xs), body=body, branches=branches, length=3)
        return h + hs

    return ff.make_program(outer)(h, np.ones((3, 4), F32))


def test_inner_programs_are_blocks(loop: Callable[..., Any]) -> None:
    program = nested(loop)
    assert program.text() == text_of(
        """
        program outer(h: float32[4], xs: float32[3,4]):
            a: float32[3,4] = exp xs
            b: float32[4], c: float32[4] = loop[length=3] h a
                body = program step(h: float32[4], x: float32[4]):
                    d: float32[4] = multiply h x
                    e: float32[4] = tanh d
                    return e, e
                branches[0] = program <lambda>(x: float32[4]):
                    f: float32[4] = multiply x 2
                    return f
                branches[1] = program <lambda>(x: float32[4]):
                    g: float32[4] = negative x
                    return g
            i: float32[4] = add b c
            return i
        """
    )
    folded = program.text(nested=False).splitlines()
    assert folded[2] == (
        "    b: float32[4], c: float32[4] = "
        "loop[body=program step branches=(program <lambda>, program <lambda>) length=3] h a"
    )
    assert len(folded) == 5


def test_a_parameter_called_program_need_not_say_so_twice(loop: Callable[..., Any]) -> None:
    (equation,) = [e for e in nested(loop).equations if e.prim.many]
    body = equation.params["body"] if equation.params else None
    text = str(Program([], [equation._replace(params={"program": body})], []))
    assert "        program step(h:" in text and "loop ?" in text


def test_inner_programs_are_frames(loop: Callable[..., Any]) -> None:
    text = nested(loop).dot()
    assert re.findall(r'label="(.* = program .*?)"', text) == [
        "body = program step",
        "branches[0] = program <lambda>",
        "branches[1] = program <lambda>",
    ]
    assert text.count("subgraph cluster") == text.count("lhead=cluster") == 3
    check_dot(text)


# -- pictures -----------------------------------------------------------------------------------


def check_dot(text: str) -> None:
    """Braces and quotes are balanced, and every edge is between nodes that are there."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    assert bare.count("{") == bare.count("}")
    assert bare.count('"') % 2 == 0
    nodes = set(re.findall(r"^\s*(n\d+) \[", bare, re.MULTILINE))
    edges = re.findall(r"^\s*(\S+) -> (\S+) \[", bare, re.MULTILINE)
    assert edges and {end for edge in edges for end in edge} <= nodes
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, encoding="utf-8", check=True)


def test_dot_of_a_gradient() -> None:
    program = ff.make_program(ff.grad(mlp))(PARAMS, X, Y)
    text = program.dot()
    check_dot(text)
    labels = re.findall(r'n\d+ \[label="(.*?)" shape=(\w+)( peripheries=2)?', text)
    assert [label for label, shape, twice in labels if shape == "ellipse" and not twice] == list(program.input_names)
    assert [label for label, _, twice in labels if twice] == ["output 0", "output 1", "output 2"]
    assert [label for label, shape, _ in labels if shape == "note"] == ["float32[8,2] all 0.0625"]
    operations = [label for label, shape, _ in labels if shape == "box"]
    assert len(operations) == len(program.equations)
    assert operations[:4] == ["matmul", "add", "tanh", "matmul"]
    assert "multiply(2, ·)" in operations and r"transpose\naxes=(1, 0)" in operations
    assert text.count('[label=" 0: float32[8,5] "]') == 1  # the first argument of a product says that it is
    assert r"a: float32[8,4] = matmul x params/w1\ntest_program_show.py:" in text


def test_backward_operations_have_a_tint_of_their_own() -> None:
    def fill(program: Program) -> list[str]:
        return re.findall(r'label="sin" .*fillcolor="(\S+)"', program.dot())

    program = ff.make_program(np.sin)(1.0)
    forward, backward = fill(placed(program, phase="forward")), fill(placed(program, phase="backward"))
    assert len(backward) == len(forward) == 1
    assert backward != forward


HOSTILE = '</text><script>alert("1")</script>&lt;\\N\n\x07'


def hostile() -> Program:
    (sin,) = ff.make_program(np.sin)(1.0).equations
    v = Var(ShapeDtypeStruct((), F32))
    code = compile("0", HOSTILE.replace("/", ""), "exec")
    source = Source(code, 0, (HOSTILE,))
    equation = Equation(sin.prim, (v,), {"p": HOSTILE}, sin.outputs, source)
    return Program([v], [equation], sin.outputs, HOSTILE, [HOSTILE])


@pytest.mark.parametrize("drawn", [True, False])
def test_html_is_escaped(drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if drawn and not shutil.which("dot"):
        pytest.skip("graphviz is not installed")
    if not drawn:
        monkeypatch.setattr(shutil, "which", lambda name: None)
    html = hostile()._repr_html_()
    assert ("<svg" in html) is drawn
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    check_dot(hostile().dot())


def test_a_picture_where_graphviz_is_installed() -> None:
    if not shutil.which("dot"):
        pytest.skip("graphviz is not installed")
    html = ff.make_program(mlp)(PARAMS, X, Y)._repr_html_()
    picture = html[html.index("<svg") : html.index("</svg>") + len("</svg>")]
    words = {"".join(e.itertext()) for e in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")}
    assert {"params/w1", "matmul", "tanh", "output"} <= {w.strip() for w in words}
    assert "<details>" in html and "program mlp(" in html


@pytest.mark.parametrize("how", ["absent", "failing", "hanging"])
def test_text_and_graph_side_by_side_where_there_is_no_picture(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: Any, **kwargs: Any) -> Any:
        if how == "hanging":
            raise subprocess.TimeoutExpired("dot", 30)
        return subprocess.CompletedProcess(args, 1, stdout="<svg> half a pict", stderr="out of memory")

    monkeypatch.setattr(shutil, "which", lambda name: None if how == "absent" else "/usr/bin/dot")
    monkeypatch.setattr(subprocess, "run", run)
    html = ff.make_program(mlp)(PARAMS, X, Y)._repr_html_()
    assert html.count("<pre>") == 2
    assert "digraph" in html and "program mlp(" in html and "<svg" not in html


def test_a_large_program_is_folded_text() -> None:
    def fun(x: Any) -> Any:
        for _ in range(drawing._MOST_EQUATIONS + 1):
            x = np.sin(x)
        return x

    html = ff.make_program(fun)(1.0)._repr_html_()
    assert html.startswith("<details><summary>program fun: 201 equations, 1 inputs, 1 outputs")
    assert "<svg" not in html and "digraph" not in html
    assert html.count("sin") == 201


# -- programs are values ------------------------------------------------------------------------


def test_nothing_of_a_program_changes() -> None:
    program = ff.make_program(np.sin)(1.0)
    for name in ("inputs", "equations", "outputs", "name", "input_names", "other"):
        with pytest.raises(errors.ImmutableError, match=f"'{name}'.*replace"):
            setattr(program, name, ())
    with pytest.raises(AttributeError, match="'name'"):
        del program.name
    again = ff.make_program(np.sin)(1.0)
    assert program == program and program != again
    assert {program: 1, again: 2}[program] == 1


def test_names_stay_with_their_inputs() -> None:
    program = ff.make_program(mlp)(PARAMS, X, Y)
    fresh = Var(program.inputs[0].aval)
    other = program.replace(inputs=[program.inputs[4], fresh, *program.inputs[1:4]])
    assert other.input_names == ("y", "", "params/w1", "params/w2", "x")
    assert program.replace(outputs=[]).input_names == program.input_names
    assert program.replace(input_names="abcde").input_names == ("a", "b", "c", "d", "e")
    with pytest.raises(errors.ArgumentError, match="each of the 5 inputs"):
        program.replace(input_names=["a"])


# -- make_program -------------------------------------------------------------------------------


def names_and_types(program: Program) -> list[str]:
    return str(program).splitlines()[0].partition("(")[2].removesuffix("):").split(", ")


def test_arguments_of_every_kind() -> None:
    def fun(x: Any, mode: Any, *rest: Any, scale: Any = 1.0, flag: Any = True) -> Any:
        assert mode == "double" and isinstance(scale, ff.core.Tracer)
        return {"y": x * rest[0]["w"] + rest[1] * scale, "mode": mode, "flag": flag}

    program = ff.make_program(fun)(
        ShapeDtypeStruct((3,), F32), "double", {"w": np.ones(3)}, 2, flag=False, scale=0.5 + 1j
    )
    assert names_and_types(program) == [
        "x: float32[3]",
        "rest/0/w: float64[3]",
        "rest/1: int",
        "flag: bool[]",
        "scale: complex",
    ]
    assert [(v.aval.shape, str(v.aval.dtype)) for v in program.outputs] == [((), "bool"), ((3,), "complex128")]


def test_simplify_takes_the_detours_out() -> None:
    def fun(x: Any) -> Any:
        np.cos(x)
        return np.sin(x) * 1.0 + np.sin(x) * 1.0

    plain, short = (ff.make_program(fun, simplify=s)(np.ones(3)) for s in (False, True))
    assert [e.prim.name for e in plain.equations] == ["cos", "sin", "multiply", "sin", "multiply", "add"]
    assert [e.prim.name for e in short.equations] == ["sin", "add"]
    assert short.input_names == ("x",)


def test_it_runs() -> None:
    program = ff.make_program(mlp)(PARAMS, X, Y)
    rng = np.random.default_rng(0)
    params, x, y = ff.tree.map(lambda a: rng.normal(size=a.shape).astype(F32), (PARAMS, X, Y))
    (loss,) = run(program, ff.tree.leaves((params, x, y)))
    np.testing.assert_allclose(loss, mlp(params, x, y), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({"static_argnums": 1}, lambda make: make(np.ones(3), 2)),
        ({"static_argnums": -1}, lambda make: make(np.ones(3), 2)),
        ({"static_argnums": (1,)}, lambda make: make(np.ones(3), n=2)),
        ({"static_argnames": "n"}, lambda make: make(np.ones(3), n=2)),
        ({"static_argnames": ("n",)}, lambda make: make(np.ones(3), 2)),
        ({"static_argnames": ("n",)}, lambda make: make(np.ones(3))),
        ({"static_argnums": None, "static_argnames": "n"}, lambda make: make(np.ones(3), 2)),
    ],
)
def test_static_arguments(settings: dict[str, Any], call: Callable[..., Program]) -> None:
    def power(x: Any, n: Any = 2) -> Any:
        for _ in range(n):
            x = x * x
        return x

    program = call(ff.make_program(power, **settings))
    assert names_and_types(program) == ["x: float64[3]"]
    assert [e.prim.name for e in program.equations] == ["multiply", "multiply"]


@pytest.mark.parametrize("transform", [ff.make_program, ff.jit])
def test_static_arguments_that_are_not_there(transform: Any) -> None:
    def fun(x: Any, n: int) -> Any:
        return x

    for settings in ({"static_argnums": 2}, {"static_argnums": -3}, {"static_argnames": "m"}):
        with pytest.raises(errors.ArgumentError, match=f"no argument {next(iter(settings))}=.*fun has x, n"):
            transform(fun, **settings)
    with pytest.raises(errors.ArgumentError, match=r"count static_argnums from 0, got -1"):
        transform(lambda *xs: xs[0], static_argnums=-1)


def test_a_value_that_is_not_known() -> None:
    with pytest.raises(errors.ConcretizationError, match="static_argnums"):
        ff.make_program(lambda x, n: x * sum(range(n)))(1.0, 3)


def test_a_value_that_is_not_known_is_named_by_the_line_of_the_user() -> None:
    def fun(x: Any) -> Any:
        positive = np.sum(x) > 0
        return x if positive else -x

    line = fun.__code__.co_firstlineno + 1
    where = rf"made in fun \({re.escape(__file__)}:{line}\)"
    for transform in (ff.make_program, ff.jit):
        with pytest.raises(errors.ConcretizationError, match=where):
            transform(fun)(np.ones(3))


def test_values_of_an_enclosing_transform_are_inputs() -> None:
    seen: list[Program] = []

    def outer(w: Any) -> Any:
        seen.append(ff.make_program(lambda x: x * w + w)(np.ones(3)))
        return np.sum(w)

    np.testing.assert_array_equal(ff.grad(outer)(np.ones(3)), np.ones(3))
    assert str(seen[0]) == text_of(
        """
        program <lambda>(captured/0: float64[3], x: float64[3]):
            a: float64[3] = multiply x captured/0
            b: float64[3] = add a captured/0
            return b
        """
    )
