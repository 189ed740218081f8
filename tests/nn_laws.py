"""What the tests of layers share: gradients beside PyTorch's and beside finite differences."""

from functools import partial

import numpy as np

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.testing import check_vmap


def doubled(params):
    """Parameters in float64, in which differences are exact enough to compare."""
    return tree.map(lambda p: p.astype(np.float64), params)


def made(layer, input_shape, seed=0):
    """A layer's parameters in float64, and its output shape."""
    output_shape, params = layer.init(random.key(seed), input_shape)
    return output_shape, doubled(params)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def pulled_back(f, *args, seed=2):
    """The value of f(*args), a random cotangent of it, and the cotangents of the arguments."""
    y, pull = ff.vjp(f, *args)
    ct = np.random.default_rng(seed).standard_normal(np.shape(y)).astype(y.dtype)
    return y, ct, pull(ct)


def check_derivatives(f, *args, eps=1e-6, rtol=1e-6, atol=1e-8):
    """A vjp against central differences in a random direction, and against the jvp."""
    rng = np.random.default_rng(3)
    direction = tree.map(lambda a: rng.standard_normal(np.shape(a)), args)
    y, ct, cts = pulled_back(f, *args)
    ahead = f(*tree.map(lambda a, d: a + eps * d, args, direction))
    behind = f(*tree.map(lambda a, d: a - eps * d, args, direction))
    measured = np.sum(ct * (ahead - behind)) / (2 * eps)
    pulled = sum(np.sum(a * b) for a, b in zip(tree.leaves(cts), tree.leaves(direction), strict=True))
    pushed = np.sum(ct * ff.jvp(f, args, direction)[1])
    np.testing.assert_allclose(pulled, measured, rtol=rtol, atol=atol)
    np.testing.assert_allclose(pulled, pushed, rtol=1e-9, atol=1e-10)
    return y


def check_layer(layer, inputs, input_shape=None, **keywords):
    """The laws that every layer keeps: the shape that init foretold, the dtype of its parameters, gradients of
    the structure, shapes and dtypes of the parameters, right derivatives in parameters and inputs, and two batches at
    once give what each gives."""
    shape = input_shape or np.shape(inputs)
    output_shape, params = layer.init(random.key(0), shape)
    single = layer.apply(params, inputs.astype(np.float32), **keywords)
    assert single.dtype == np.float32
    grads = ff.grad(lambda p: np.sum(layer.apply(p, inputs.astype(np.float32), **keywords)))(params)
    assert tree.structure(grads) == tree.structure(params)
    for g, p in zip(tree.leaves(grads), tree.leaves(params), strict=True):
        assert (g.shape, g.dtype) == (p.shape, p.dtype)
    y = check_derivatives(lambda p, x: layer.apply(p, x, **keywords), doubled(params), inputs)
    assert len(y.shape) == len(output_shape)
    assert all(n in (-1, m) for n, m in zip(output_shape, y.shape, strict=True))
    f = partial(layer.apply, **keywords)
    pair = np.stack([inputs, inputs[::-1] * 0.5])
    check_vmap(f, (doubled(params), pair), in_axes=(None, 0))
    check_vmap(ff.grad(lambda p, x: np.sum(f(p, x))), (doubled(params), pair), in_axes=(None, 0))


def in_single(tree_of_arrays):
    """Floating leaves of a pytree in float32."""
    return tree.map(lambda a: a.astype(np.float32) if a.dtype.kind == "f" else a, tree_of_arrays)


def check_jit(f, *args):
    """A jitted function and its gradients are those of the plain one, on both executors, in float64 and float32."""

    def value_and_grads(*args):
        value, pull = ff.vjp(f, *args)
        return value, pull(tree.map(np.cos, value))

    for given, tolerance in ((args, 1e-9), (in_single(args), 2e-4)):
        expected = value_and_grads(*given)
        for native in (True, False):
            with ff.config.override(use_native=native):
                got = ff.jit(value_and_grads)(*given)
            assert tree.structure(got) == tree.structure(expected)
            for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
                np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def check_layer_jitted(layer, inputs, **keywords):
    """`check_layer`, and that it is the same under jit."""
    check_layer(layer, inputs, **keywords)
    _, params = made(layer, np.shape(inputs))
    check_jit(lambda p, x: layer.apply(p, x, **keywords), params, inputs)


def alone(batch, i):
    """Sequence `i` of a padded batch, as a batch of its own."""
    return batch.values[i : i + 1, : batch.lengths[i]]


def ragged(n, steps, features, lengths, seed=4):
    """A padded batch whose padding is large and wrong, so that whoever looks at it is found out."""
    values = normal(n, steps, features, seed=seed)
    batch = nn.Padded(values, np.array(lengths))
    return nn.Padded(np.where(batch.mask()[:, :, None], values, 1e3), batch.lengths)


def to_torch(tree_of_arrays):
    """Leaves of a pytree as PyTorch tensors that want a gradient."""
    import torch

    return tree.map(lambda a: torch.tensor(np.asarray(a), requires_grad=True), tree_of_arrays)


def channels_first(f):
    """A function of PyTorch's on an array with the channels last."""
    return lambda x, *args, **keywords: f(x.movedim(-1, 1), *args, **keywords).movedim(1, -1)


def check_both_against_torch(f, torch_f, params, x):
    """`check_against_torch` in float64 and in float32."""
    check_against_torch(f, torch_f, params, x)
    check_against_torch(f, torch_f, in_single(params), in_single(x), rtol=5e-5, atol=5e-5)


def check_against_torch(f, torch_f, params, x, rtol=1e-9, atol=1e-10):
    """Values and both gradients beside those of the same function on tensors."""
    y, ct, (d_params, d_x) = pulled_back(f, params, x)
    t_params, t_x = to_torch(params), to_torch(x)
    t_y = torch_f(t_params, t_x)
    np.testing.assert_allclose(y, t_y.detach().numpy(), rtol=rtol, atol=atol)
    t_y.backward(t_y.new_tensor(ct))
    assert d_x.dtype == x.dtype
    np.testing.assert_allclose(d_x, t_x.grad.numpy(), rtol=rtol, atol=atol)
    for (path, g), t in zip(tree.leaves_with_path(d_params), tree.leaves(t_params), strict=True):
        np.testing.assert_allclose(g, t.grad.numpy(), rtol=rtol, atol=atol, err_msg=tree.path_str(path))
