"""The planner of memory: nothing in use together overlaps, and nothing is wasted where that can be told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fnflare.compiler.memory import ALIGNMENT, plan

lifetimes = st.tuples(st.integers(0, 9), st.integers(0, 5)).map(lambda t: (t[0], t[0] + t[1]))
buffers = st.tuples(st.integers(0, 1000), lifetimes).map(lambda t: (t[0], *t[1]))


@given(st.lists(buffers, max_size=30))
def test_buffers_in_use_together_do_not_overlap(given_buffers: list[tuple[int, int, int]]) -> None:
    offsets, total = plan(given_buffers)
    placed = list(zip(offsets, given_buffers, strict=True))
    for n, (begin, (size, first, last)) in enumerate(placed):
        assert begin % ALIGNMENT == 0 and begin + size <= total
        for other, (other_size, other_first, other_last) in placed[:n]:
            together = first <= other_last and other_first <= last
            apart = begin + size <= other or other + other_size <= begin
            assert apart or not together or not size or not other_size


@given(st.lists(buffers, max_size=30))
def test_total_lies_between_the_peak_and_the_sum(given_buffers: list[tuple[int, int, int]]) -> None:
    rounded = [(-(-size // ALIGNMENT) * ALIGNMENT, first, last) for size, first, last in given_buffers]
    peak = max((sum(s for s, f, t in rounded if f <= moment <= t) for moment in range(16)), default=0)
    _, total = plan(given_buffers)
    assert peak <= total <= sum(s for s, _, _ in rounded)


def test_a_chain_takes_its_two_largest_neighbours() -> None:
    _, total = plan([(256, n, n + 1) for n in range(100)])
    assert total == 512


def test_a_gap_that_fits_best_is_taken() -> None:
    taken = [(640, 0, 9), (320, 0, 3), (256, 0, 9), (192, 0, 3), (128, 0, 9), (64, 5, 9)]
    offsets, total = plan(taken)
    assert offsets[5] == offsets[3]  # 192 bytes are free there, 320 at the other place
    assert total == 640 + 320 + 256 + 192 + 128
