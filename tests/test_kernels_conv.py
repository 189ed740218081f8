"""The convolution kernels against PyTorch, and against the laws of adjoints."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnflare.kernels import conv as kernels


@st.composite
def problems(draw):
    """Random inputs, filters and settings for one, two or three spatial axes."""
    rank = draw(st.integers(1, 3))

    def axis(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    window, strides, dilation = axis(1, 3), axis(1, 3), axis(1, 2)
    padding = tuple(zip(axis(0, 2), axis(0, 2), strict=True))
    spatial = tuple((k - 1) * d + draw(st.integers(1, 4)) for k, d in zip(window, dilation, strict=True))
    batch, channels, filters = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal((batch, *spatial, channels))
    w = rng.standard_normal((*window, channels, filters))
    return x, w, strides, padding, dilation


def torch_conv(x, w, strides, padding, dilation):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    rank = w.ndim - 2
    # Contiguous: PyTorch itself cannot take the gradient of some filters that are not.
    tx = torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)), requires_grad=True)
    tw = torch.tensor(np.ascontiguousarray(np.transpose(w, (rank + 1, rank, *range(rank)))), requires_grad=True)
    flat = [n for pair in reversed(padding) for n in pair]
    function = getattr(torch.nn.functional, f"conv{rank}d")
    return tx, tw, function(torch.nn.functional.pad(tx, flat), tw, stride=strides, dilation=dilation)


@given(problems())
def test_conv_and_both_adjoints_are_those_of_torch(problem):
    x, w, strides, padding, dilation = problem
    rank = w.ndim - 2
    tx, tw, ty = torch_conv(x, w, strides, padding, dilation)
    y = kernels.conv(x, w, strides, padding, dilation)
    np.testing.assert_allclose(y, np.moveaxis(ty.detach().numpy(), 1, -1), rtol=1e-12, atol=1e-12)
    ct = np.random.default_rng(0).standard_normal(y.shape)
    ty.backward(ty.new_tensor(np.moveaxis(ct, -1, 1)))
    dx = kernels.conv_input_grad(ct, w, x.shape, strides, padding, dilation)
    dw = kernels.conv_filter_grad(x, ct, w.shape, strides, padding, dilation)
    np.testing.assert_allclose(dx, np.moveaxis(tx.grad.numpy(), 1, -1), rtol=1e-12, atol=1e-12)
    expected = np.transpose(tw.grad.numpy(), (*range(2, rank + 2), 1, 0))
    np.testing.assert_allclose(dw, expected, rtol=1e-12, atol=1e-12)


@given(problems())
def test_the_gradients_are_adjoint_to_the_convolution(problem):
    x, w, strides, padding, dilation = problem
    y = kernels.conv(x, w, strides, padding, dilation)
    ct = np.random.default_rng(1).standard_normal(y.shape)
    product = np.vdot(ct, y)
    dx = kernels.conv_input_grad(ct, w, x.shape, strides, padding, dilation)
    dw = kernels.conv_filter_grad(x, ct, w.shape, strides, padding, dilation)
    np.testing.assert_allclose([np.vdot(dx, x), np.vdot(dw, w)], product, rtol=1e-10, atol=1e-10)


@given(problems())
def test_fold_is_adjoint_to_windows(problem):
    x, w, strides, _, dilation = problem
    view = kernels.windows(x, w.shape[:-2], strides, dilation)
    ct = np.random.default_rng(2).standard_normal(view.shape)
    back = kernels.fold(ct, x.shape, strides, dilation)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(back, x), np.vdot(ct, view), rtol=1e-10, atol=1e-10)


@given(problems())
def test_conv_is_a_contraction_of_windows(problem):
    x, w, strides, padding, dilation = problem
    rank = w.ndim - 2
    padded = np.pad(x, ((0, 0), *padding, (0, 0)))
    view = kernels.windows(padded, w.shape[:-2], strides, dilation)
    expected = np.tensordot(view, np.moveaxis(w, -2, 0), axes=rank + 1)
    actual = kernels.conv(x, w, strides, padding, dilation)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_windows_is_a_read_only_view():
    x = np.zeros((1, 5, 2))
    view = kernels.windows(x, (3,), (1,), (1,))
    assert np.shares_memory(view, x)
    with pytest.raises(ValueError, match="read-only"):
        view[...] = 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", [(1, 1), (3, 2)])
def test_the_dtype_is_kept(dtype, window):
    x, w = np.ones((2, 5, 5, 3), dtype), np.ones((*window, 3, 4), dtype)
    settings_ = (1, 1), ((0, 0), (0, 0)), (1, 1)
    y = kernels.conv(x, w, *settings_)
    dx = kernels.conv_input_grad(y, w, x.shape, *settings_)
    dw = kernels.conv_filter_grad(x, y, w.shape, *settings_)
    view = kernels.windows(x, window, (1, 1), (1, 1))
    folded = kernels.fold(view, x.shape, (1, 1), (1, 1))
    assert {a.dtype for a in (y, dx, dw, view, folded)} == {np.dtype(dtype)}


def test_a_batch_is_convolved_in_blocks_as_at_once(monkeypatch):
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((7, 9, 8, 2)), rng.standard_normal((3, 3, 2, 5))
    settings_ = (1, 2), ((1, 1), (0, 2)), (1, 1)

    def run():
        y = kernels.conv(x, w, *settings_)
        return (
            y,
            kernels.conv_input_grad(y, w, x.shape, *settings_),
            kernels.conv_filter_grad(x, y, w.shape, *settings_),
        )

    at_once = run()
    monkeypatch.setattr(kernels, "_BLOCK_BYTES", 30_000)
    for a, b in zip(at_once, run(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_inputs_may_be_views_of_other_arrays():
    rng = np.random.default_rng(4)
    wide = rng.standard_normal((3, 6, 12, 4))
    x, w = wide[:, :, ::2], rng.standard_normal((1, 1, 4, 2))
    y = kernels.conv(x, w, (1, 1), ((0, 0), (0, 0)), (1, 1))
    np.testing.assert_allclose(y, x @ w[0, 0], rtol=1e-12)
