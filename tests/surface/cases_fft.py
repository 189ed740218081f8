"""Calls of numpy.fft: odd and even lengths, cut and padded, along all axes, in each scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
from surface_cases import Case, normal


def complex_normal(*shape: int) -> Any:
    """Complex numbers of standard normal parts."""
    return normal(*shape) + 1j * normal(*shape, seed=1)


R5, R6, C5, C4 = normal(5), normal(6), complex_normal(5), complex_normal(4)
R34, C34 = normal(3, 4), complex_normal(3, 4)
R232, C232 = normal(2, 3, 2), complex_normal(2, 3, 2)
NORMS = ("backward", "ortho", "forward")
ONE = {"fft": (R5, C4), "ifft": (R6, C5), "rfft": (R5, R6), "irfft": (C5, R6), "hfft": (C4, R5), "ihfft": (R5, R6)}
MANY = {"fftn": C34, "ifftn": C34, "rfftn": R34, "irfftn": C34}
TWO = {"fft2": C232, "ifft2": C232, "rfft2": R232, "irfft2": C232}


def _along_one_axis(name: str, xs: tuple[Any, ...]) -> list[Case]:
    f = getattr(np.fft, name)
    plain = [Case(f"fft.{name}", lambda x: f(x), (x,)) for x in xs]
    scaled = [Case(f"fft.{name}", lambda x, norm=norm: f(x, norm=norm), (xs[0],)) for norm in NORMS]
    sized = [Case(f"fft.{name}", lambda x, n=n: f(x, n), (x,)) for x in xs for n in (1, 3, 7, 8)]
    matrix = C34 if xs[0].dtype.kind == "c" else R34
    return [*plain, *scaled, *sized, Case(f"fft.{name}", lambda x: f(x, 4, 0, "ortho"), (matrix,))]


def _along_many_axes(name: str, x: Any) -> list[Case]:
    f = getattr(np.fft, name)
    return [
        Case(f"fft.{name}", lambda x: f(x), (x,)),
        *[Case(f"fft.{name}", lambda x, norm=norm: f(x, norm=norm), (x,)) for norm in NORMS],
        Case(f"fft.{name}", lambda x: f(x, axes=(1, 0)), (x,)),
        Case(f"fft.{name}", lambda x: f(x, axes=(-2,)), (x,)),
        Case(f"fft.{name}", lambda x: f(x, (2, 5), axes=(0, 1)), (x,)),
        Case(f"fft.{name}", lambda x: f(x, (-1, 3), axes=(1, 0), norm="ortho"), (x,)),
    ]


def _along_two_axes(name: str, x: Any) -> list[Case]:
    f = getattr(np.fft, name)
    return [
        Case(f"fft.{name}", lambda x: f(x), (x,)),
        Case(f"fft.{name}", lambda x: f(x, (4, 3)), (x,)),
        Case(f"fft.{name}", lambda x: f(x, axes=(0, 1), norm="forward"), (x,)),
    ]


CASES = [
    *[case for name, xs in ONE.items() for case in _along_one_axis(name, xs)],
    *[case for name, x in MANY.items() for case in _along_many_axes(name, x)],
    *[case for name, x in TWO.items() for case in _along_two_axes(name, x)],
    Case("fft.fftn", lambda x: np.fft.fftn(x, axes=(0, 0)), (C34,)),
    Case("fft.fftn", lambda x: np.fft.fftn(x, axes=()), (R34,)),
    Case("fft.fftn", np.fft.fftn, (R232,)),
    Case("fft.fft", lambda x: np.abs(np.fft.fft(x)) ** 2, (R5,)),
    Case("fft.rfft", lambda x: np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(x), 5), (R5,)),
    Case("fft.fftshift", np.fft.fftshift, (R5,)),
    Case("fft.fftshift", lambda x: np.fft.fftshift(x, axes=1), (R34,)),
    Case("fft.fftshift", lambda x: np.fft.fftshift(x, axes=(0, -1)), (C232,)),
    Case("fft.ifftshift", np.fft.ifftshift, (R34,)),
    Case("fft.ifftshift", lambda x: np.fft.ifftshift(np.fft.fftshift(x) * x), (C5,)),
]
