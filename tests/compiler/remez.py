"""Polynomials and quotients of them that come closest to a function: how the constants of `elementary` were found.

A function, a weight and an interval go in, the coefficients of the best approximation in the sense of the largest
weighted error come out, by the exchange of Remez in arithmetic of many digits. Printed for all families by
``python -m tests.compiler.remez``.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 60
Function = Callable[[mp.mpf], mp.mpf]


def remez(
    f: Function,
    low: float,
    high: float,
    p: int,
    q: int = 0,
    weight: Function = lambda x: mp.mpf(1),
    stretch: float = 1,
    sweeps: int = 30,
) -> tuple[list[mp.mpf], list[mp.mpf], mp.mpf]:
    """The quotient of polynomials of degrees `p` and `q` that is nearest to a function.

    Args:
        f: the function.
        low: where the interval begins.
        high: where it ends.
        p: the numerator's degree.
        q: the denominator's; its constant term is 1.
        weight: what the error is multiplied with.
        stretch: the points begin as Chebyshev's, taken to this power, which brings more of them to where it begins.
        sweeps: the most exchanges of points to do.

    Returns:
        The coefficients of the numerator and the denominator, constant terms first, and the largest error.
    """
    n = p + q + 2

    def chebyshev(count: int) -> list[mp.mpf]:
        return [
            low + (mp.mpf(high) - low) * ((1 - mp.cos(mp.pi * k / (count - 1))) / 2) ** stretch for k in range(count)
        ]

    points, dense = chebyshev(n), chebyshev(40 * n)
    values, weights = [f(x) for x in dense], [weight(x) for x in dense]
    top: list[mp.mpf] = []
    bottom: list[mp.mpf] = []
    for _ in range(sweeps):
        top, bottom = _levelled(f, weight, points, p, q)
        errors = [
            w * (mp.polyval(top[::-1], x) / mp.polyval(bottom[::-1], x) - y)
            for x, y, w in zip(dense, values, weights, strict=True)
        ]
        points, largest, smallest = _extrema(dense, errors, n)
        if largest <= smallest * mp.mpf("1.01"):
            break
    return top, bottom, max(abs(e) for e in errors)


def _levelled(f: Function, weight: Function, points: list[mp.mpf], p: int, q: int) -> tuple[list[mp.mpf], list[mp.mpf]]:
    """The quotient whose weighted errors at some points are equal but for alternating signs."""
    level = mp.mpf(0)
    values, weights = [f(x) for x in points], [weight(x) for x in points]
    for _ in range(1 if q == 0 else 8):
        rows, right = [], []
        for k, (x, y, w) in enumerate(zip(points, values, weights, strict=True)):
            wanted = y + (-1) ** k * level / w
            rows.append([x**i for i in range(p + 1)] + [-wanted * x**j for j in range(1, q + 1)] + [-((-1) ** k) / w])
            right.append(y)
        solution = list(mp.lu_solve(mp.matrix(rows), mp.matrix(right)))
        level = solution[-1]
    return solution[: p + 1], [mp.mpf(1), *solution[p + 1 : -1]]


def _extrema(xs: list[mp.mpf], errors: list[mp.mpf], n: int) -> tuple[list[mp.mpf], mp.mpf, mp.mpf]:
    """The `n` neighbouring points of largest error between changes of sign, and the largest and smallest of them."""
    peaks: list[tuple[mp.mpf, mp.mpf]] = []
    for x, e in zip(xs, errors, strict=True):
        if peaks and (e > 0) == (peaks[-1][1] > 0):
            if abs(e) > abs(peaks[-1][1]):
                peaks[-1] = (x, e)
        else:
            peaks.append((x, e))
    while len(peaks) > n:
        peaks.pop(0 if abs(peaks[0][1]) < abs(peaks[-1][1]) else -1)
    if len(peaks) < n:
        raise ArithmeticError(f"{len(peaks)} changes of sign where {n} were expected: try other degrees")
    sizes = [abs(e) for _, e in peaks]
    return [x for x, _ in peaks], max(sizes), min(sizes)
