"""A profile tells what ran and where it was written, and changes nothing of what it tells of."""

import re
import threading
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import nn, optim, tree
from fnflare.errors import ArgumentError
from fnflare.transforms._report import Bar, bar_chart, show_bytes, show_count, show_seconds, text_table

RNG = Draws(5)
X = RNG.standard_normal((8, 3))
XS = RNG.standard_normal((5, 4, 3))
P = {"w": RNG.standard_normal((3, 4)), "u": RNG.standard_normal((4, 4)), "b": np.zeros(4)}


def line(f, offset):
    """The number of a line of a function, counted from its first."""
    return f.__code__.co_firstlineno + offset


def loss(p, x):
    h = np.tanh(x @ p["w"] + p["b"])
    return np.mean(h * h)


def recurrent_loss(p, xs):
    def step(h, x):
        h = np.tanh(x @ p["w"] + h @ p["u"] + p["b"])
        return h, np.sum(h)

    h, ys = ff.scan(step, np.zeros((4, 4)), xs)
    return np.mean(h * h) + np.sum(ys)


def by_op(report, op):
    return {c.phase: c for c in report.by_op() if c.op == op}


class TestCounts:
    def test_a_product_costs_2mnk_each_way(self):
        report = ff.profile(ff.grad(loss))(P, X)
        products = by_op(report, "matmul")
        m, k, n = 8, 3, 4
        assert products.keys() == {"forward", "backward"}
        for c in products.values():
            assert (c.calls, c.flops, c.nbytes) == (1, 2 * m * n * k, 8 * (m * k + k * n + m * n))
        both = ff.profile(ff.grad(loss, argnums=(0, 1)))(P, X)
        assert by_op(both, "matmul")["backward"].calls == 2

    def test_sums_agree_however_they_are_grouped(self):
        report = ff.profile(ff.grad(recurrent_loss))(P, XS)
        for rows in (report.by_op(), report.by_line(), report.by_layer()):
            assert sum(r.calls for r in rows) == report.calls
            assert sum(r.nbytes for r in rows) == report.nbytes
            assert sum(r.flops or 0 for r in rows) == report.flops
            assert sum(r.seconds for r in rows) + report.outside == pytest.approx(report.seconds)
            assert [r.seconds for r in rows] == sorted([r.seconds for r in rows], reverse=True)

    def test_views_move_no_bytes_and_reads_only_what_is_read(self):
        ids = np.array([1, 0, 1])

        def f(x):
            return np.reshape(x.T, (2, -1)), x[1:3], x[ids]

        report = ff.profile(f)(np.zeros((4, 100)))
        # The transposed array cannot be reshaped in place: it is read and written once.
        assert by_op(report, "transpose")["forward"].nbytes == 0
        assert by_op(report, "reshape")["forward"].nbytes == 2 * 4 * 100 * 8
        assert by_op(report, "getitem")["forward"].nbytes == 2 * 3 * 100 * 8
        assert by_op(report, "getitem")["forward"].flops is None

    def test_plain_functions_are_seen_too(self):
        report = ff.profile(loss)(P, X)
        assert {c.op for c in report.by_op()} == {"matmul", "add", "tanh", "multiply", "sum", "divide"}
        assert {c.phase for c in report.by_op()} == {"forward"}

    def test_parameters_from_elsewhere_are_seen_through_transforms(self):
        report = ff.profile(lambda: ff.grad(loss)(P, X))()
        assert by_op(report, "matmul").keys() == {"forward", "backward"}
        assert tree.equal(report.out, ff.grad(loss)(P, X))

    def test_a_table_of_rows_is_added_up_once(self):
        ids = np.array([[1, 2], [2, 0]])
        model = nn.serial(rows=nn.Embedding(10, 3), pool=nn.GlobalAvgPool)
        _, params = model.init(ff.random.key(0), (-1, -1))
        report = ff.profile(ff.grad(lambda p: np.sum(model.apply(p, ids))))(params)
        assert by_op(report, "scatter_add")["backward"].calls == 1
        assert {(c.layer, c.phase) for c in report.by_layer()} >= {("rows", "backward"), ("pool", "forward")}


class TestPlaces:
    def test_lines_are_the_users(self):
        report = ff.profile(ff.grad(loss))(P, X)
        lines = {(c.line, c.phase): c for c in report.by_line()}
        assert lines.keys() == {(line(loss, i), phase) for i in (1, 2) for phase in ("forward", "backward")}
        assert {c.file for c in lines.values()} == {__file__}
        first = lines[line(loss, 1), "forward"]
        assert first.text == 'h = np.tanh(x @ p["w"] + p["b"])'
        assert first.calls == 3

    def test_lines_of_one_statement_over_several_are_apart(self):
        def f(x):
            return (
                np.sin(x)
                + np.cos(x)
            )  # fmt: skip

        found = {c.line for c in ff.profile(f)(X).by_line()}
        assert {line(f, 2), line(f, 3)} <= found

    def test_the_body_of_a_loop_has_its_line_forward_and_backward(self):
        report = ff.profile(ff.grad(recurrent_loss))(P, XS)
        body = line(recurrent_loss, 2)
        lines = {(c.line, c.phase): c for c in report.by_line()}
        product = 2 * 5 * 4 * 3 * 4 + 2 * 5 * 4 * 4 * 4
        assert lines[body, "forward"].flops >= product
        assert lines[body, "backward"].flops >= product

    def test_layers_have_their_paths_and_the_line_of_their_call(self):
        model = nn.serial(encoder=nn.serial(lstm=nn.LSTM(4), pool=nn.GlobalMaxPool), out=nn.Dense(2))
        _, params = model.init(ff.random.key(0), (-1, -1, 3))

        def total(p, x):
            y = model.apply(p, x)
            return np.sum(y)

        report = ff.profile(ff.grad(total))(params, XS.astype(np.float32))
        layers = {(c.layer, c.phase) for c in report.by_layer()}
        for path in ("encoder/lstm", "encoder/pool", "out"):
            assert {(path, "forward"), (path, "backward")} <= layers
        assert {c.line for c in report.by_line()} == {line(total, 1), line(total, 2)}

    def test_control_flow_of_python_is_followed(self):
        def depth(x):
            if np.sum(x) < 100:
                return depth(x * 2)
            return np.sum(x)

        report = ff.profile(ff.value_and_grad(depth))(np.ones(3))
        doubled = {c.phase: c.calls for c in report.by_line() if c.line == line(depth, 2)}
        assert doubled["forward"] == 6
        assert doubled["backward"] == 6
        assert report.out[0] == 192


def _step(p, x):
    optimiser = optim.adam(0.01)
    gradient = ff.grad(loss)(p, x)
    updates, _ = optimiser.update(gradient, optimiser.init(p), p)
    return optim.apply_updates(p, updates)


def _jacobian(p, x):
    return ff.jacfwd(lambda w: np.tanh(x @ w))(p["w"])


def _branch(p, x):
    return ff.cond(np.sum(x) > 0, lambda: np.sum(p["w"]), lambda: np.sum(p["u"]) * 2)


UNCHANGED = {
    "value_and_grad": (ff.value_and_grad(loss), X),
    "jit of grad": (ff.jit(ff.grad(loss)), X),
    "grad of jit": (ff.grad(ff.jit(loss)), X),
    "scan": (ff.value_and_grad(recurrent_loss), XS),
    "jit of scan": (ff.jit(ff.grad(recurrent_loss)), XS),
    "jvp": (lambda p, x: ff.jvp(lambda q: loss(q, x), (p,), (p,)), X),
    "linearize": (lambda p, x: ff.linearize(lambda q: loss(q, x), p)[1](p), X),
    "vmap of grad": (ff.vmap(ff.grad(loss), in_axes=(None, 0)), XS),
    "jacfwd": (_jacobian, X),
    "hessian": (lambda p, x: ff.hessian(lambda b: loss({**p, "b": b}, x))(p["b"]), X),
    "cond": (ff.jit(_branch), X),
    "grad of cond": (ff.grad(_branch), X),
    "while_loop": (lambda p, x: ff.while_loop(lambda c: np.sum(c) < 99, lambda c: np.abs(c) * 2 + 1, x), X),
    "checkpoint": (lambda p, x: ff.grad(ff.checkpoint(loss))(p, x), X),
    "a training step": (_step, X),
    "random numbers": (lambda p, x: x + ff.random.normal(ff.random.key(1), (3,)), X),
}


class TestNothingChanges:
    @pytest.mark.parametrize("name", UNCHANGED)
    def test_out_is_the_answer(self, name):
        f, x = UNCHANGED[name]
        expected = f(P, x)
        report = ff.profile(f)(P, x)
        assert report.calls > 0
        assert tree.structure(report.out) == tree.structure(expected)
        for a, b in zip(tree.leaves(report.out), tree.leaves(expected), strict=True):
            assert type(a) is type(b)
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)
        assert tree.equal(f(P, x), expected)

    @pytest.mark.parametrize(
        "write",
        [
            lambda y, x: y.sort(),
            lambda y, x: y.partition(1),
            lambda y, x: y.fill(x[0, 0] * 2),
            lambda y, x: y.put([0, 3], x[0, :2] * 7),
            lambda y, x: y.resize((2, 2), refcheck=False),
            lambda y, x: y.__setitem__(0, x[1] * 2),
            lambda y, x: y.__iadd__(x),
            lambda y, x: np.copyto(y, x * 3),
            lambda y, x: np.fill_diagonal(y, x[0, 0]),
        ],
    )
    def test_writing_into_arrays(self, write):
        def f(p, x):
            y = x * 2
            write(y, x)
            return y

        np.testing.assert_array_equal(ff.profile(f)(P, X).out, f(P, X))

    def test_numbers_have_no_memory_to_write_into(self):
        def f(x):
            total = before = np.sum(x)
            total += 1
            return before, total, repr(total), str(total), f"{total:.2f}", np.array(total), float(total)

        for a, b in zip(ff.profile(f)(X).out, f(X), strict=True):
            assert type(a) is type(b)
            assert a == b

    def test_arguments_that_are_no_arrays_pass_through(self):
        def f(words, *, scale, deep):
            return words, scale, deep["x"] * 2, deep["n"]

        word, scale, x, n = ff.profile(f)(["a", None], scale=2.0, deep={"x": X, "n": 3}).out
        assert (word, scale, n) == (["a", None], 2.0, 3)
        np.testing.assert_array_equal(x, X * 2)

    def test_gradients_are_the_callers_own(self):
        a, b = ff.profile(ff.grad(lambda a, b: np.sum(a + b), argnums=(0, 1)))(X, X).out
        a += 1
        np.testing.assert_array_equal(b, np.ones_like(X))

    def test_profiles_nest(self):
        def f(p, x):
            inner = ff.profile(ff.grad(loss))(p, x)
            return inner.calls, np.sum(inner.out["w"])

        report = ff.profile(f)(P, X)
        calls, total = report.out
        assert report.calls == calls + 1
        assert total == np.sum(ff.grad(loss)(P, X)["w"])

    def test_under_a_transform_its_operations_are_seen(self):
        seen = []

        def f(x):
            report = ff.profile(lambda y: np.sum(np.sin(y)))(x)
            seen.append({c.op for c in report.by_op()})
            return report.out

        np.testing.assert_array_equal(ff.grad(f)(X), np.cos(X))
        assert seen == [{"sin", "sum"}]

    def test_errors_come_out_as_they_are(self):
        def f(x):
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            ff.profile(f)(X)

    def test_other_threads_are_not_counted(self):
        def f(x):
            thread = threading.Thread(target=lambda: ff.grad(loss)(P, X))
            thread.start()
            thread.join()
            return np.sin(x)

        assert ff.profile(f)(X).calls == 1


class TestRepeat:
    def test_tells_of_one_run(self):
        runs = []

        def f(x):
            runs.append(1)
            return np.sin(x)

        assert ff.profile(f, repeat=4)(X).calls == 1
        assert len(runs) == 4

    def test_must_be_positive(self):
        with pytest.raises(ArgumentError, match="repeat must be at least 1, got 0"):
            ff.profile(np.sin, repeat=0)


class TestShown:
    def test_as_aligned_tables(self):
        report = ff.profile(ff.grad(loss))(P, X)
        text = str(report)
        assert text == repr(report)
        lines = text.splitlines()
        assert lines[0].startswith("profile of grad(loss): ")
        assert f"{report.calls} operations" in lines[0]
        header = next(x for x in lines if x.startswith("operation"))
        assert header.split() == ["operation", "phase", "calls", "time", "share", "FLOP", "bytes", "GFLOP/s", "GB/s"]
        row = next(x for x in lines if x.startswith("matmul") and "backward" in x)
        assert row[: header.index("calls") + 5].split()[-1] == "1"
        assert sum(x.startswith("(outside of operations)") for x in lines) == 2
        assert sum(x.startswith("total") and "100.0 %" in x for x in lines) == 2
        assert re.search(rf"test_profile.py:{line(loss, 1)} .*np.tanh", text)
        assert "layer" not in text

    def test_with_layers_where_there_are_any(self):
        _, params = nn.Dense(2).init(ff.random.key(0), (-1, 3))
        with nn.scope("top"):
            text = str(ff.profile(nn.Dense(2).apply)(params, X.astype(np.float32)))
        assert re.search(r"^top +forward", text, re.MULTILINE)

    def test_with_a_hint_where_nothing_was_seen(self):
        report = ff.profile(lambda: np.sin(X))()
        assert report.calls == 0
        assert "pass the arrays as arguments" in str(report)
        assert report.outside == report.seconds

    def test_in_a_notebook_as_bars(self):
        report = ff.profile(ff.grad(loss))(P, X)
        shown = report._repr_html_()
        svg = re.search("<svg.*</svg>", shown, re.DOTALL)
        assert svg is not None
        bars = ET.fromstring(svg[0])
        texts = [t.text for t in bars.iter("{http://www.w3.org/2000/svg}text")]
        assert {"tanh", "matmul", "forward", "backward", "outside", "(outside of operations)"} <= set(texts)
        assert shown.count("<table>") == 2
        assert "p[&quot;w&quot;]" in shown

    def test_many_rows_are_cut(self):
        def f(x):
            for g in (np.sin, np.cos, np.tan, np.exp, np.tanh, np.sinh, np.cosh, np.arctan, np.square, np.negative,
                      np.cbrt, np.exp2, np.expm1, np.arcsinh, np.abs, np.sign, np.floor, np.ceil, np.rint, np.trunc,
                      np.positive, ff.nn.relu, ff.nn.softplus):  # fmt: skip
                x = g(x) * 0.1
            return x

        report = ff.profile(f)(X)
        assert len(report.by_op()) == 24
        assert "(4 more)" in str(report)
        assert "(12 more)" in report._repr_html_()

    @pytest.mark.parametrize(
        ("value", "text"), [(0, "0"), (999, "999"), (1234, "1.23 k"), (999_900, "1000 k"), (2.5e9, "2.5 G")]
    )
    def test_counts(self, value, text):
        assert show_count(value) == text

    @pytest.mark.parametrize(
        ("value", "text"), [(0.0, "0 ns"), (2.5e-7, "250 ns"), (1.234e-5, "12.3 µs"), (0.9999, "1000 ms"), (2, "2 s")]
    )
    def test_times(self, value, text):
        assert show_seconds(value) == text

    def test_bytes(self):
        assert (show_bytes(12), show_bytes(120_000)) == ("12 B", "120 kB")

    def test_tables_and_charts_of_nothing(self):
        assert text_table(["a", "b"], [["x", "1"]], 1) == ["a  b", "----", "----", "x  1"]
        ET.fromstring(bar_chart([]))
        ET.fromstring(bar_chart([Bar("<lambda>", "0 ns", {"forward": 0.0})]))


class TestMemory:
    def test_of_native_code(self):
        pytest.importorskip("llvmlite")
        x = np.ones((200, 300))

        def f(x):
            h = x @ x.T  # lies in scratch memory
            return np.tanh(h) @ x

        needed = 8 * (200 * 200 + 200 * 300)
        report = ff.profile(ff.jit(f))(x)
        assert needed <= report.peak_bytes <= 2 * needed
        assert f", peak memory {show_bytes(report.peak_bytes)} as native code\n" in str(report)
        assert "peak memory" in report._repr_html_()
        np.testing.assert_allclose(report.out, f(x))

    def test_donated_memory_is_not_needed(self):
        pytest.importorskip("llvmlite")
        x = np.ones((200, 300))
        f, g = ff.jit(lambda x, y: x * 2 + y), ff.jit(lambda x, y: x * 2 + y, donate_argnums=0)
        assert ff.profile(f)(x, x * 3).peak_bytes == x.nbytes
        assert ff.profile(g)(x, x * 3).peak_bytes == 0

    def test_is_not_told_of_what_is_not_native(self):
        sorts = ff.jit(lambda x: np.sort(np.exp(x)) + 1)
        with ff.config.override(use_native=False):
            reports = [ff.profile(ff.jit(loss))(P, X)]
        with ff.disable_jit():
            reports.append(ff.profile(ff.jit(loss))(P, X))
        reports += [ff.profile(loss)(P, X), ff.profile(ff.grad(ff.jit(loss)))(P, X), ff.profile(sorts)(X)]
        assert [r.peak_bytes for r in reports] == [None] * 5
        assert not any("peak memory" in str(r) for r in reports)
