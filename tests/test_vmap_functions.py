"""`vmap` in and around functions with rules of their own, checkpoints, and nets with gradients of each example."""

import numpy as np
import pytest
from vmap_laws import RNG, close, normal

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.errors import CotangentError, UnsupportedError
from fnflare.testing import check_vmap

# -- functions with rules of their own ----------------------------------------------------------


def plain(x, w):
    return np.tanh(x @ w) * x


def with_vjp():
    f = ff.custom_vjp(plain)

    def backward(residuals, ct):
        x, w = residuals
        t = np.tanh(x @ w)
        g = ct * x * (1 - t * t)
        return w @ g + ct * t, x[:, None] * g

    f.defvjp(lambda x, w: (f(x, w), (x, w)), backward)
    return f


def with_jvp():
    f = ff.custom_jvp(plain)

    @f.defjvp
    def _(primals, tangents):
        (x, w), (dx, dw) = primals, tangents
        t = np.tanh(x @ w)
        return f(x, w), t * dx + x * (1 - t * t) * (dx @ w + x @ dw)

    return f


RULED = {"custom_vjp": with_vjp, "custom_jvp": with_jvp, "checkpoint": lambda: ff.checkpoint(plain)}
X, W, C = normal(4, 3), normal(3, 3) / 2, normal(4, 3)
SHARED_AND_NOT = [
    ((0, None), X, W),
    ((1, None), X.T, W),
    ((0, -1), X, normal(3, 3, 4)),
    ((None, 0), X[0], normal(4, 3, 3)),
]


@pytest.mark.parametrize("kind", RULED)
@pytest.mark.parametrize(("axes", "x", "w"), SHARED_AND_NOT)
class TestFunctionsWithRules:
    def test_inside_of_the_map(self, kind, axes, x, w):
        f = RULED[kind]()

        def loss(f):
            return lambda x, w: np.sum(np.sin(f(x, w)))

        def twice(f):
            return lambda x, w: np.sum(ff.grad(loss(f))(x, w))

        for function in (lambda f: f, lambda f: ff.grad(loss(f), (0, 1)), lambda f: ff.grad(twice(f), (0, 1))):
            close(ff.vmap(function(f), axes)(x, w), ff.vmap(function(plain), axes)(x, w))
            check_vmap(function(f), (x, w), axes)
        if kind != "custom_vjp":
            for function in (lambda f: ff.hessian(loss(f)), lambda f: lambda x, w: ff.jvp(f, (x, w), (x, w))):
                close(ff.vmap(function(f), axes)(x, w), ff.vmap(function(plain), axes)(x, w))

    def test_around_the_map(self, kind, axes, x, w):
        def total(f):
            return lambda x, w: np.sum(np.sin(ff.vmap(f, axes)(x, w)))

        def scaled(f):
            return lambda s: np.sum(ff.vmap(lambda a: total(f)(x * a * s, w * s))(np.arange(4.0)))

        def between(f):
            return lambda s: np.sum(ff.vmap(ff.grad(lambda a: total(f)(x * a, w * a * s)))(np.arange(3.0)))

        f = RULED[kind]()
        close(ff.grad(total(f), (0, 1))(x, w), ff.grad(total(plain), (0, 1))(x, w))
        close(ff.grad(scaled(f))(1.3), ff.grad(scaled(plain))(1.3))
        close(ff.grad(between(f))(1.3), ff.grad(between(plain))(1.3))
        assert tree.map(np.shape, ff.eval_shape(ff.grad(total(f), (0, 1)), x, w)) == (x.shape, w.shape)
        if kind != "custom_vjp":
            close(ff.hessian(total(f))(x, w), ff.hessian(total(plain))(x, w))
            close(ff.linearize(total(f), x, w)[1](x, w), ff.jvp(total(plain), (x, w), (x, w))[1])

    def test_a_pullback_outlives_the_map_and_is_mapped_itself(self, kind, axes, x, w):
        pullbacks = [ff.vjp(ff.vmap(f, axes), x, w)[1] for f in (RULED[kind](), plain)]
        cts = normal(2, 4, 3)
        close(*[p(cts[0]) for p in pullbacks])
        close(*[ff.vmap(p)(cts) for p in pullbacks])


def made_of(h, x, y):
    return h(lambda v: y * v)(x)


#: Functions of `w` that wrap a function with a closure over batches, or over what is batched further out.
CLOSURES = {
    "a batch, and an argument that is batched": lambda h, w: ff.vmap(
        lambda x, c: np.sin(h(lambda v: np.tanh(v @ w * c))(x))
    )(X, C),
    "a batch alone": lambda h, w: ff.vmap(lambda x: np.sin(h(lambda v: np.tanh(x @ v))(w)))(X),
    "what was made of a batch": lambda h, w: ff.vmap(lambda x: made_of(h, x, x @ w))(X),
    "a batch that is returned": lambda h, w: ff.vmap(lambda x: h(lambda v: x)(w))(X) * np.sum(w),
    "batches of two maps": lambda h, w: ff.vmap(
        lambda x: ff.vmap(lambda c: np.sin(h(lambda v: np.tanh(v @ w) * c * x)(x)))(C)
    )(X),
    "the outer of two maps": lambda h, w: ff.vmap(
        lambda x: ff.vmap(lambda c: np.sin(h(lambda v: np.tanh(x @ v) * v[0])(w)) * c)(C)
    )(X),
    "a gradient within": lambda h, w: ff.vmap(
        lambda x: ff.grad(lambda z: np.sum(np.sin(h(lambda v: np.tanh(v @ w * z) * x)(z))))(x)
    )(X),
    "one within another": lambda h, w: ff.vmap(lambda x: h(lambda v: h(lambda u: np.tanh(u @ w * x * v))(w[1]) * v)(x))(
        X
    ),
}


@pytest.mark.parametrize("name", CLOSURES)
def test_checkpoints_close_over_batches(name):
    ours, theirs = [lambda w, h=h: np.sum(CLOSURES[name](h, w)) for h in (ff.checkpoint, lambda f: f)]
    close(ours(W), theirs(W))
    close(ff.grad(ours)(W), ff.grad(theirs)(W))
    close(ff.hessian(ours)(W), ff.hessian(theirs)(W))
    close(ff.jvp(ours, (W,), (W.T,)), ff.jvp(theirs, (W,), (W.T,)))
    close(ff.vmap(ff.grad(ours))(np.stack([W, 2 * W])), ff.vmap(ff.grad(theirs))(np.stack([W, 2 * W])))


def tripled_by_vjp(x, c):
    f = ff.custom_vjp(lambda v: v * c)
    f.defvjp(lambda v: (v * c, c), lambda r, ct: (3 * ct * r * c,))
    return f(x)


def tripled_by_jvp(x, c):
    f = ff.custom_jvp(lambda v: v * c)
    f.defjvp(lambda p, t: (f(*p), 3 * t[0] * c * c))
    return f(x)


@pytest.mark.parametrize("f", [tripled_by_vjp, tripled_by_jvp])
@pytest.mark.parametrize(("axes", "x", "c"), [((0, 0), X, C), ((None, 0), X[0], C), ((0, None), X, C[0])])
def test_custom_rules_close_over_batches(f, axes, x, c):
    """The rule is used, and a batch of the closure is the batch of the arguments, not another one."""
    check_vmap(f, (x, c), axes)
    check_vmap(ff.grad(lambda x, c: np.sum(f(x, c))), (x, c), axes)
    total = ff.grad(lambda x: np.sum(ff.vmap(f, axes)(x, c)))(x)
    close(total, np.sum(3 * C * C, axis=0) if axes[0] is None else np.broadcast_to(3 * c * c, x.shape))


def test_a_gradient_of_what_a_rule_closes_over_is_still_refused():
    def f(w):
        def per_example(x):
            g = ff.custom_vjp(lambda v: v * w)
            g.defvjp(lambda v: (v * w, None), lambda r, ct: (ct,))
            return g(x)

        return np.sum(ff.vmap(per_example)(X))

    with pytest.raises(UnsupportedError, match="from its closure"):
        ff.grad(f)(W[0])
    close(f(W[0]), np.sum(X * W[0]))


def test_rules_see_examples_one_at_a_time_and_trees():
    seen = []

    @ff.custom_vjp
    def f(x, n, extra):
        return {"y": x * extra["s"], "k": np.argmax(x)}

    def forward(x, n, extra):
        seen.append((x.shape, n, np.shape(extra["s"])))
        return f(x, n, extra), (extra, "tag")

    def backward(residuals, ct):
        extra, tag = residuals
        seen.append((ct["y"].shape, tag))
        return ct["y"] * extra["s"] * 2, None, {"s": np.sum(ct["y"]) * 5}

    f.defvjp(forward, backward)
    s = normal(4)

    def loss(x, s):
        return np.sum(f(x, 3, {"s": s})["y"])

    close(
        ff.grad(lambda x, s: np.sum(ff.vmap(loss)(x, s)), (0, 1))(X, s),
        (np.repeat(2 * s, 3).reshape(4, 3), np.full(4, 15.0)),
    )
    assert seen == [((3,), 3, ()), ((3,), "tag")]
    close(ff.grad(lambda s: np.sum(ff.vmap(loss, (0, None))(X, s)))(2.0), 60.0)


def test_wrong_cotangents_are_refused_below_the_map():
    f = ff.custom_vjp(lambda x: x * 2)
    f.defvjp(lambda x: (x * 2, None), lambda r, ct: (ct[:2],))
    with pytest.raises(CotangentError, match=r"shape \(2,\) for leaf 0, which has shape \(3,\)"):
        ff.grad(lambda x: np.sum(ff.vmap(f)(x)))(X)
    with pytest.raises(UnsupportedError, match="reverse mode only"):
        ff.jvp(ff.vmap(f), (X,), (X,))


# -- nets ---------------------------------------------------------------------------------------

MODELS = {
    "mlp": (nn.serial(nn.Dense(5), nn.Relu, nn.Dense(3)), (4,)),
    "lenet": (
        nn.serial(
            nn.Conv(4, (3, 3), padding="SAME"), nn.Relu, nn.MaxPool((2, 2)), nn.Conv(3, (2, 2)), nn.Tanh,
            nn.AvgPool((2, 2), strides=(1, 1)), nn.Flatten, nn.Dense(3),
        ),
        (8, 8, 2),
    ),
    "conv1d": (nn.serial(nn.Conv(4, 3, strides=2, dilation=2), nn.Relu, nn.GlobalMaxPool, nn.Dense(3)), (9, 2)),
    "lstm": (nn.serial(nn.LSTM(3, last=True), nn.Dense(3)), (5, 4)),
    "bilstm": (nn.serial(nn.LSTM(2, bidirectional=True), nn.GlobalMaxPool, nn.Dense(3)), (4, 3)),
    "gru": (nn.serial(nn.GRU(3, last=True), nn.LayerNorm(), nn.Dense(3)), (5, 4)),
    "attention": (
        nn.serial(nn.MultiHeadAttention(2, causal=True), nn.LayerNorm(), nn.GlobalAvgPool, nn.Dense(3)), (5, 4),
    ),
    "dropout": (nn.serial(nn.Dense(6), nn.Dropout(0.5), nn.Tanh, nn.Dense(3), nn.Dropout(0.2)), (4,)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_each_example_of_a_net(name):
    model, shape = MODELS[name]
    _, params = model.init(random.key(0), (-1, *shape))
    params = tree.map(lambda p: p.astype(np.float64), params)
    xs, labels, keys = normal(3, *shape), np.array([0, 2, 1]), random.split(random.key(1), 3)

    def loss(params, x, label, key):
        logits = model.apply(params, x[None], key=key, train=True)[0]
        return nn.losses.softmax_cross_entropy_with_integer_labels(logits[None], label[None])[0]

    each = ff.value_and_grad(loss)
    check_vmap(each, (params, xs, labels, keys), (None, 0, 0, 0))
    check_vmap(each, (params, np.moveaxis(xs, 0, -1), labels, keys), (None, -1, 0, 0))
    values, grads = ff.vmap(each, (None, 0, 0, 0))(params, xs, labels, keys)
    total = ff.grad(lambda p: np.sum(ff.vmap(loss, (None, 0, 0, 0))(p, xs, labels, keys)))(params)
    close(total, tree.map(lambda g: g.sum(0), grads))
    assert values.shape == (3,)

    def product(params, x, label, key):
        gradient = ff.grad(lambda p: loss(p, x, label, key))
        return ff.jvp(gradient, (params,), (params,))[1]

    check_vmap(product, (params, xs, labels, keys), (None, 0, 0, 0))


def test_gradients_of_each_sentence_of_a_net_on_words():
    model = nn.serial(nn.Embedding(9, 4), nn.LSTM(3), nn.GlobalMaxPool, nn.Dense(2))
    _, params = model.init(random.key(0), (-1, -1))
    params = tree.map(lambda p: p.astype(np.float64), params)
    words, lengths = RNG.integers(0, 9, (3, 5)), np.array([5, 2, 3])

    def loss(params, words, length):
        return np.sum(np.sin(model.apply(params, nn.Padded(words[None], length[None]))))

    check_vmap(ff.grad(loss), (params, words, lengths), (None, 0, 0))
    for i, n in enumerate(lengths):
        alone = ff.grad(lambda p, i=i, n=n: np.sum(np.sin(model.apply(p, words[i : i + 1, :n]))))(params)
        close(tree.map(lambda g, i=i: g[i], ff.vmap(ff.grad(loss), (None, 0, 0))(params, words, lengths)), alone)


def test_an_ensemble_of_nets_and_its_gradients():
    model, shape = MODELS["lenet"]
    members = [model.init(random.key(k), (-1, *shape))[1] for k in range(3)]
    stacked = tree.map(lambda *xs: np.stack(xs).astype(np.float64), *members)
    x = normal(2, *shape)

    def loss(params, x):
        return np.sum(np.square(model.apply(params, x)))

    check_vmap(ff.value_and_grad(loss), (stacked, x), (0, None))
    check_vmap(ff.grad(loss, argnums=1), (stacked, np.stack([x, x, 2 * x])), (0, 0))


def test_members_initialised_at_once_are_those_initialised_one_by_one():
    model, shape = MODELS["mlp"]
    keys = random.split(random.key(0), 3)
    together = ff.vmap(lambda k: model.init(k, (-1, *shape))[1])(keys)
    alone = [model.init(k, (-1, *shape))[1] for k in keys]
    close(together, tree.map(lambda *xs: np.stack(xs), *alone), 1e-6)
    assert {leaf.dtype for leaf in tree.leaves(together)} == {np.dtype(np.float32)}
