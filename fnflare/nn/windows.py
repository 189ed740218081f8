"""Settings of layers that move a window over space or time: its size, strides, padding and dilation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.layer import Shape, mismatch, positive_int
from fnflare.padded import Padded

__all__ = ["Padding", "Window"]

#: ``"SAME"``, ``"VALID"``, ``"CAUSAL"``, or the zeros before and after each spatial axis.
Padding = str | Sequence[tuple[int, int]]


def per_axis(kind: str, name: str, value: Any, rank: int | None = None, least: int = 1) -> tuple[int, ...]:
    """A setting with one integer for each spatial axis; an integer holds for all of them."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * (rank or 1)
    if len(values) != (rank or len(values)) or not values:
        axes = "at least one axis" if rank is None else f"each of the {rank} axes of the window"
        raise ArgumentError(f"{kind}: {name} needs an integer for {axes}, got {value!r}")
    return tuple([positive_int(kind, name, v, least) for v in values])


class Window:
    """A window that moves over the spatial axes of (N, *spatial, C), its settings checked.

    Args:
        kind: the layer, for messages.
        window: its size along each spatial axis; an integer means one axis.
        strides: the distance between windows along each axis, or one for all.
        padding: ``"SAME"`` (as many windows as there are strides in the input), ``"VALID"`` (only whole
            windows), ``"CAUSAL"`` (one axis; no window sees what comes after it), or a pair (low, high) for
            each axis.
        dilation: the distance between the elements of a window along each axis, or one for all.
        ceil_mode: whether a last window that sticks out counts too, if it starts before the end of the input.
    """

    def __init__(
        self, kind: str, window: Any, strides: Any, padding: Any, dilation: Any = 1, ceil_mode: bool = False
    ) -> None:
        self.kind = kind
        self.ceil_mode = ceil_mode
        self.size = per_axis(kind, "window", window)
        self.rank = len(self.size)
        self.strides = per_axis(kind, "strides", strides, self.rank)
        self.dilation = per_axis(kind, "dilation", dilation, self.rank)
        self.padding = self._checked_padding(padding)
        self.wanted = f"(N, {', '.join('T' if self.rank == 1 else 'HWD'[: self.rank])}, C)"

    def _checked_padding(self, padding: Any) -> Any:
        if isinstance(padding, str):
            name = padding.upper()
            if name not in ("SAME", "VALID", "CAUSAL"):
                raise ArgumentError(
                    f"{self.kind}: padding must be 'SAME', 'VALID', 'CAUSAL' or a pair (low, high) for each axis, "
                    f"got {padding!r}"
                )
            if name == "CAUSAL" and self.rank != 1:
                raise ArgumentError(
                    f"{self.kind}: 'CAUSAL' padding is for windows over one axis, time; got {self.size}"
                )
            return name
        try:
            pairs = tuple([(int(low), int(high)) for low, high in padding])
        except (TypeError, ValueError):
            pairs = ()
        if len(pairs) != self.rank or any(n < 0 for pair in pairs for n in pair):
            raise ArgumentError(
                f"{self.kind}: explicit padding is a pair (low, high) of numbers from 0 for each of the {self.rank} "
                f"axes of the window, got {padding!r}"
            )
        return pairs

    def pads(self, spatial: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """The zeros before and after each axis of an input of this size, those for a last window that sticks out left
        away."""
        if not isinstance(self.padding, str):
            return self.padding
        reach = [(k - 1) * d for k, d in zip(self.size, self.dilation, strict=True)]
        if self.padding == "VALID":
            return ((0, 0),) * self.rank
        if self.padding == "CAUSAL":
            return ((reach[0], 0),)
        # What the last of ceil(n / stride) windows lacks, the odd zero at the end.
        lacks = [max(r - (n - 1) % s, 0) for r, n, s in zip(reach, spatial, self.strides, strict=True)]
        return tuple([(n // 2, n - n // 2) for n in lacks])

    def output_shape(self, shape: Shape, channels: int) -> Shape:
        """The shape of the output; free dimensions stay free."""
        if len(shape) != self.rank + 2:
            raise ShapeError(f"{scoping.where()}{self.kind} expected inputs {self.wanted}, got input shape {shape}")
        spatial = shape[1:-1]
        sizes = self._sizes(spatial, self.pads([max(n, 1) for n in spatial]))
        out = tuple([-1 if n < 0 else size for n, size in zip(spatial, sizes, strict=True)])
        if any(n >= 0 and size < 1 for n, size in zip(spatial, sizes, strict=True)):
            raise ShapeError(
                f"{scoping.where()}{self.kind}: the window {self.size} does not fit inputs of shape {shape}"
            )
        return (shape[0], *out, channels)

    def _sizes(self, spatial: Any, pads: Any, least: Callable[[Any, Any], Any] = min) -> list[Any]:
        """How many windows there are along the axes whose sizes are given; `least` of two may be one of arrays."""
        axes = list(zip(spatial, pads, self.size, self.dilation, self.strides, strict=False))
        if not self.ceil_mode:
            return [(n + low + high - (k - 1) * d - 1) // s + 1 for n, (low, high), k, d, s in axes]
        return [
            least(-((n + low + high - (k - 1) * d - 1) // -s) + 1, (n + low - 1) // s + 1)
            for n, (low, high), k, d, s in axes
        ]

    def covering(self, spatial: Sequence[int], pads: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """The zeros before and after each axis that all windows need."""
        if not self.ceil_mode:
            return pads
        ends = [
            (m - 1) * s + (k - 1) * d + 1
            for m, k, d, s in zip(self._sizes(spatial, pads), self.size, self.dilation, self.strides, strict=True)
        ]
        return tuple([(low, max(high, end - n - low)) for n, (low, high), end in zip(spatial, pads, ends, strict=True)])

    def prepare(self, inputs: Any, fill: Any) -> tuple[Any, Any, tuple[tuple[int, int], ...]]:
        """Check inputs.

        Args:
            inputs: (N, *spatial, C), or a `Padded` batch of such values, time being the first spatial axis.
            fill: what the windows shall see past the end of a sequence, or a function of the dtype that gives it.

        Returns:
            The values, with `fill` past the end of each sequence; the length of each output sequence, or
            None; and the padding.
        """
        values = inputs.values if type(inputs) is Padded else inputs
        shape = getattr(values, "shape", ())
        if len(shape) != self.rank + 2:
            raise mismatch(self.kind, self.wanted, values)
        pads = self.pads(shape[1:-1])
        if min(self._sizes(shape[1:-1], pads)) < 1:
            raise ShapeError(
                f"{scoping.where()}{self.kind}: the window {self.size} does not fit inputs of shape {shape}"
            )
        covering = self.covering(shape[1:-1], pads)
        if type(inputs) is not Padded:
            return values, None, covering
        if self.padding == "SAME" and self.strides[0] > 1:
            raise ArgumentError(
                f"{scoping.where()}{self.kind}: with strides {self.strides} 'SAME' padding depends on the length, so "
                "sequences in a Padded batch would not give what they give alone; use 'CAUSAL', 'VALID' or pairs"
            )
        lengths = np.maximum(self._sizes((inputs.lengths,), pads[:1], np.minimum)[0], 0)
        return clear(values, inputs.mask(), fill(values.dtype) if callable(fill) else fill), lengths, covering


def clear(values: Any, mask: Any, fill: Any) -> Any:
    """`values` (N, T, ...) where the mask (N, T) is true, `fill` elsewhere."""
    wide = np.reshape(mask, (*mask.shape, *(1,) * (values.ndim - 2)))
    return np.where(wide, values, np.asarray(fill, values.dtype))


def least(dtype: Any) -> Any:
    """What never wins a maximum: minus infinity, or the least integer."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def rewrap(values: Any, lengths: Any) -> Any:
    """Outputs with the lengths they have, zeros past the end of each sequence."""
    if lengths is None:
        return values
    padded = Padded(values, lengths)
    return Padded(clear(values, padded.mask(), 0), lengths)


#: What stands around the input, by its name, and what NumPy's ``pad`` calls it.
PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad_mode(kind: str, value: Any) -> str:
    """A setting that says what stands around the input; NumPy's name for it."""
    if value not in PAD_MODES:
        raise ArgumentError(f"{kind}: padding_mode must be one of {', '.join(map(repr, PAD_MODES))}, got {value!r}")
    return PAD_MODES[value]


def bordered(kind: str, inputs: Any, x: Any, pads: tuple[tuple[int, int], ...], mode: str) -> Any:
    """An input (N, *spatial, C) with elements of its own around it, as NumPy's ``pad`` has them."""
    if type(inputs) is Padded and any(pads[0]):
        raise ArgumentError(
            f"{scoping.where()}{kind}: what stands around the sequences of a Padded batch depends on where each ends; "
            "use padding_mode='zeros', or 'VALID' padding along time"
        )
    spare = {"reflect": 1, "wrap": 0}.get(mode)
    if spare is not None and any(max(pair) > n - spare for n, pair in zip(x.shape[1:-1], pads, strict=True)):
        raise ShapeError(
            f"{scoping.where()}{kind}: inputs of shape {x.shape} are too small to be padded by {pads} with elements "
            "of their own; use padding_mode='replicate' or 'zeros'"
        )
    return np.pad(x, ((0, 0), *pads, (0, 0)), mode=mode)  # type: ignore[call-overload]
