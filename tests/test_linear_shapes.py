"""NumPy's functions that move or weigh elements are linear: a tangent that is pushed forward is what the function makes
of it, a cotangent that is pulled back the transpose. Random shapes and arguments; NumPy itself is the oracle."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

import fnflare as ff

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
signs = st.integers(-5, 5)


def arrays_of(shape, seed):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def check_linear(f, shape, seed=0):
    """Both modes of a linear function against NumPy, and under vmap; f must be NumPy's own on plain arrays."""
    x, t = arrays_of(shape, seed), arrays_of(shape, seed + 1)
    expected, pushed = np.asarray(f(x)), np.asarray(f(t))
    out, tangent = ff.jvp(f, (x,), (t,))
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12, strict=True)
    np.testing.assert_allclose(tangent, pushed, rtol=1e-12, atol=1e-12, strict=True)
    out, pull = ff.vjp(f, x)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12, strict=True)
    u = arrays_of(expected.shape, seed + 2)
    (ct,) = pull(np.asarray(u)[()])
    np.testing.assert_allclose(np.sum(ct * t), np.sum(u * pushed), rtol=1e-9, atol=1e-9)
    batched = ff.vmap(f, in_axes=-1)(np.stack([x, t], axis=-1))
    np.testing.assert_allclose(batched, np.stack([expected, pushed]), rtol=1e-12, atol=1e-12, strict=True)


@st.composite
def paddings(draw):
    shape = draw(shapes)
    mode = draw(st.sampled_from(["constant", "edge", "linear_ramp", "mean", "reflect", "symmetric", "wrap"]))
    widths = [tuple(draw(st.tuples(st.integers(0, 7), st.integers(0, 7)))) for _ in shape]
    keywords = {}
    if mode in ("reflect", "symmetric"):
        keywords = {"reflect_type": draw(st.sampled_from(["even", "odd"]))}
    elif mode == "mean":
        keywords = {"stat_length": draw(st.one_of(st.none(), st.integers(1, 5)))}
    form = draw(st.sampled_from(["all", "one pair", "number"]))
    return shape, {"all": widths, "one pair": widths[0], "number": widths[0][0]}[form], mode, keywords


@given(paddings())
def test_pad(case):
    shape, widths, mode, keywords = case
    check_linear(lambda x: np.pad(x, widths, mode, **keywords), shape)


@given(shapes, st.data())
def test_turns(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    shift = data.draw(st.one_of(signs, st.tuples(signs, signs)))
    check_linear(lambda x: np.roll(x, shift, axis), shape)
    if len(shape) > 1:
        first, second = data.draw(st.permutations(range(len(shape))))[:2]
        k = data.draw(signs)
        check_linear(lambda x: np.rot90(x, k, (first, second - len(shape))), shape)
    order = data.draw(st.permutations(range(len(shape))))
    check_linear(lambda x: np.moveaxis(x, range(len(shape)), order), shape)
    start = data.draw(st.integers(-len(shape), len(shape)))
    check_linear(lambda x: np.rollaxis(x, axis, start), shape)


@given(shapes, st.data())
def test_copies(shape, data):
    reps = data.draw(st.lists(st.integers(0, 3), max_size=4))
    check_linear(lambda x: np.tile(x, reps), shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    n = shape[axis]
    counts = data.draw(st.one_of(st.integers(0, 3), st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    check_linear(lambda x: np.repeat(x, counts, axis), shape)
    new = data.draw(shapes)
    check_linear(lambda x: np.resize(x, new), shape)


@given(shapes, st.data())
def test_elements_left_out_and_put_in(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    places = data.draw(st.one_of(st.integers(-n, n - 1), st.lists(st.integers(-n, n - 1), max_size=4), st.slices(n)))
    check_linear(lambda x: np.delete(x, places, axis), shape)
    check_linear(lambda x: np.insert(x, places, 0.0, axis), shape)
    values = np.zeros([1 if i == axis % len(shape) else m for i, m in enumerate(shape)])
    if not isinstance(places, int):
        check_linear(lambda x: np.insert(x, places, values + np.sum(x), axis), shape)
    borders = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    check_linear(lambda x: np.concatenate(np.split(x, borders, axis)[::-1], axis), shape)
    parts = data.draw(st.integers(1, 5))
    check_linear(lambda x: np.concatenate(np.array_split(x, parts, axis)[::-1], axis), shape)


@given(shapes, st.data())
def test_neighbours(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    order = data.draw(st.integers(0, 4))
    check_linear(lambda x: np.diff(x, order, axis), shape)
    edge_order = data.draw(st.integers(1, 2))
    assume(n > edge_order)
    points = np.cumsum(data.draw(st.lists(st.floats(0.3, 2.0), min_size=n, max_size=n)))
    for spacing in ((), (0.7,), (points,)):
        check_linear(lambda x: np.gradient(x, *spacing, axis=axis, edge_order=edge_order), shape)  # noqa: B023
    check_linear(lambda x: np.trapezoid(x, points, axis=axis), shape)


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["full", "same", "valid"]))
def test_windows(n, m, mode):
    other = arrays_of((m,), 7)
    for f in (np.convolve, np.correlate):
        check_linear(lambda x: f(x, other, mode), (n,))  # noqa: B023
        check_linear(lambda x: f(other, x, mode), (n,))  # noqa: B023


@st.composite
def contractions(draw):
    """Subscripts and shapes of random contractions: repeated letters, ellipses, lengths of one that broadcast."""
    sizes = {c: draw(st.integers(1, 3)) for c in "abcd"}
    dots = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, shape_list = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.lists(st.sampled_from("abcd"), max_size=3))
        place = draw(st.integers(0, len(letters))) if draw(st.booleans()) else None
        own = [sizes[c] for c in letters]
        if place is not None:
            wide = dots[draw(st.integers(0, len(dots))) :]
            own[place:place] = wide
            letters.insert(place, "...")
        terms.append("".join(letters))
        shape_list.append(tuple(own))
    text = ",".join(terms)
    if draw(st.booleans()):
        there = sorted(set("".join(terms)) & set("abcd"))
        out = draw(st.permutations(there))[: draw(st.integers(0, len(there)))]
        if "..." in text:
            out.insert(draw(st.integers(0, len(out))), "...")
        text += "->" + "".join(out)
    return text, shape_list


@given(contractions(), st.data())
def test_einsum(case, data):
    text, shape_list = case
    operands = [arrays_of(s, 10 + i) for i, s in enumerate(shape_list)]
    k = data.draw(st.integers(0, len(operands) - 1))

    def f(x):
        return np.einsum(text, *operands[:k], x, *operands[k + 1 :])

    check_linear(f, shape_list[k])
    check_linear(lambda x: np.einsum(*sublists(text, [*operands[:k], x, *operands[k + 1 :]])), shape_list[k])


def sublists(text, operands):
    """The same call with numbers for letters."""

    def numbers(term):
        parts = term.replace("...", ".")
        return [... if c == "." else ord(c) - ord("a") for c in parts]

    left, arrow, out = text.partition("->")
    pairs = [p for x, term in zip(operands, left.split(","), strict=True) for p in (x, numbers(term))]
    return [*pairs, numbers(out)] if arrow else pairs
