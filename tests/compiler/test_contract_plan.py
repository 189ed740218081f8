"""How a contraction is analysed and planned, before any code is written."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnflare.compiler.llvm.contract_loops import kind, simplified, swapped
from fnflare.compiler.llvm.tiles import SHARE_FLOPS, Machine, Plan, plan
from fnflare.nest import ContractLoop, Index, Size, index

AVX2 = Machine(256, 16)
Numbers = tuple[Index | int, Index | int, Index | int, Index | int]


def loops_of(*loops: Numbers) -> tuple[ContractLoop, ...]:
    return tuple([ContractLoop(*[index(n) for n in loop]) for loop in loops])


def product(m: int, k: int, n: int, transposed: bool = False) -> tuple[ContractLoop, ...]:
    b = (1, k) if transposed else (n, 1)
    return simplified(loops_of((m, n, k, 0), (n, 1, 0, b[1]), (k, 0, 1, b[0])))


def numbers(loop: ContractLoop) -> list[int | None]:
    return [x.constant for x in (loop.extent, loop.out, loop.a, loop.b)]


def turns(loops: tuple[ContractLoop, ...]) -> Counter[tuple[int, ...]]:
    """Which elements meet, and how often."""
    every = itertools.product(*[range(x.extent.constant or 0) for x in loops])
    rows = [[n or 0 for n in numbers(x)[1:]] for x in loops]
    return Counter(tuple(sum(i * r[at] for i, r in zip(turn, rows, strict=True)) for at in range(3)) for turn in every)


@given(
    st.lists(st.tuples(st.integers(1, 4), *[st.sampled_from([0, 1, 2, 3, 4, 6, 8, 12])] * 3), min_size=0, max_size=4)
)
def test_simpler_loops_take_the_same_turns(loops: list[tuple[int, int, int, int]]) -> None:
    before = loops_of(*loops)
    after = simplified(before)
    assert turns(after) == turns(before)
    assert len(after) <= len(before) and all(x.extent != 1 for x in after)


def test_loops_that_walk_as_one_become_one() -> None:
    rows = index(Size("rows"))
    loops = loops_of(
        (2, rows * 300, rows * 700, 0), (rows, 300, 700, 0), (1, 5, 5, 5), (300, 1, 0, 1), (700, 0, 1, 300)
    )
    merged = simplified(loops)
    assert [kind(x) for x in merged] == ["row", "column", "sum"]
    assert merged[0].extent == rows * 2


def test_operands_change_places() -> None:
    loops = product(3, 4, 5)
    assert [kind(x) for x in swapped(loops)] == ["column", "row", "sum"]
    assert [numbers(x) for x in swapped(swapped(loops))] == [numbers(x) for x in loops]


@pytest.mark.parametrize("machine", [AVX2, Machine(512, 32), Machine(128, 16)], ids=str)
@pytest.mark.parametrize("shape", [(1, 25, 100), (32, 25, 100), (7, 300, 50), (100, 64, 8), (300, 300, 300)])
def test_a_tile_fits_the_registers(machine: Machine, shape: tuple[int, int, int]) -> None:
    for transposed in (False, True):
        best = plan(product(*shape, transposed), 4, True, machine)
        for chunk in filter(None, (best.chunk, best.rest)):
            assert chunk.rows * chunk.columns * chunk.sets + min(chunk.rows, chunk.columns) < machine.registers + 1


def test_what_lies_in_the_lanes() -> None:
    def made(*shape: int, transposed: bool = False) -> Plan:
        return plan(product(*shape, transposed), 4, True, AVX2)

    assert made(32, 25, 100).lanes == "column" and not made(32, 25, 100).packed
    # One row leaves nothing to reuse of a copied operand; many rows do.
    assert made(1, 100, 25, transposed=True).lanes == "sum"
    assert made(64, 100, 64, transposed=True).packed
    assert plan(product(8, 8, 8), 4, False, AVX2).width == 1


def test_little_work_stays_on_one_thread() -> None:
    assert plan(product(32, 25, 100), 4, True, AVX2).shared is None
    large = plan(product(512, 64, 64), 4, True, AVX2)
    assert large.shared is large.row and 2 * SHARE_FLOPS < 2 * 512 * 64 * 64
    batches = simplified(loops_of((16, 4096, 2048, 2048), (64, 64, 32, 0), (64, 1, 0, 64), (32, 0, 1, 64)))
    shared = plan(batches, 4, True, AVX2).shared
    assert shared is not None and kind(shared) == "batch"


def test_a_long_sum_is_done_in_blocks() -> None:
    best = plan(product(300, 14080, 100), 4, True, AVX2)
    assert best.packed and best.strip is not None and best.strip * best.chunk.columns * 8 * 4 <= 32 * 1024
