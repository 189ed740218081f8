"""Where memory lies: sizes as arithmetic, blocks that are kept, and which programs are tiny."""

import pytest
from native import lowered

from fnflare.compiler.arena import Block, Pool, Slot
from fnflare.compiler.layout import evaluate, is_tiny
from fnflare.nest import Axis, Branch, Buffer, Contract, ContractLoop, Kernel, Part, Repeat, Run, Size, index


def test_sizes_are_arithmetic():
    m, n = Size("m"), Size("n")
    value = index(m) * index(n) * 3 + (index(n) * index(n) + 1) // (index(m) + 2) - index(n) % 4 + 7
    for a in range(1, 6):
        for b in range(1, 9):
            assert evaluate(value, {m: a, n: b}) == a * b * 3 + (b * b + 1) // (a + 2) - b % 4 + 7


def test_a_pool_hands_each_block_to_one_caller():
    pool = Pool()
    a, b = pool.take(1000), pool.take(1000)
    assert a is not b
    assert a.address % 64 == 0 and a.size >= 1000
    pool.give(a)
    assert pool.take(2000) is not a
    assert pool.take(500) is a


def test_a_pool_keeps_few_blocks():
    pool = Pool()
    blocks = [pool.take(1 << n) for n in range(10)]
    for b in blocks:
        pool.give(b)
    assert [pool.take(1).size for _ in range(4)] == [512, 256, 128, 64]
    assert pool.take(1) not in blocks


def test_a_block_ends_where_it_says():
    for size in (1, 63, 64, 65, 4096):
        b = Block(size)
        assert b.address + size <= b._memory.__array_interface__["data"][0] + b._memory.nbytes


def word(slot):
    return int(slot._word[0])


def test_a_slot_grows_and_knows_its_size():
    slot = Slot()
    slot.reserve(0)
    assert word(slot) == 0
    slot.reserve(100)
    first = word(slot)
    slot.reserve(60)
    assert word(slot) == first
    slot.reserve(101)
    assert word(slot) != first
    assert word(slot) % 64 == 0
    for size in (100, 1000, 10):
        slot.reserve(size)
    assert sum(b.size for b in slot._blocks) < 5 * 1000


# -- how much work a program is ----------------------------------------------------------------------


def statements(turns, work):
    axis = Axis("i", index(turns))
    kernel = Kernel("kernel", (), (), axis, (), work=index(work))
    return Run(kernel, (), ())


def tiny(*body, sizes=()):
    return is_tiny(lowered([], [], body=body, sizes=[(s, 0, 0) for s, _ in sizes]), tuple(n for _, n in sizes))


def test_little_work_is_tiny():
    assert tiny()
    assert tiny(statements(100, 10))
    assert not tiny(statements(100, 1000))
    one = Part(Buffer("b", "f32", index(1), "scratch"), index(0))
    loops = [ContractLoop(index(n), index(0), index(0), index(0)) for n in (10, 10, 10)]
    assert tiny(Contract(one, one, one, tuple(loops)))
    assert not tiny(Contract(one, one, one, (*loops, *loops)))
    assert not tiny(Repeat(Axis("t", index(1000)), (statements(100, 1),)))
    assert tiny(Repeat(Axis("t", index(10)), (statements(100, 1),)))
    assert not tiny(Repeat(Axis("t", index(1)), (), condition=one))  # nobody knows for how long
    assert not tiny(Branch(one, ((), (statements(100, 1000),))))


def test_work_follows_the_sizes():
    n, own = Size("n"), Size("m")
    kernel = Kernel("kernel", (), (own,), Axis("i", index(own)), (), work=index(own) * 2)
    run = Run(kernel, (), (index(n) + 1,))
    assert tiny(run, sizes=[(n, 50)])
    assert not tiny(run, sizes=[(n, 100)])


def test_work_that_depends_on_a_loop_is_not_tiny():
    t, own = Axis("t", index(5)), Size("m")
    kernel = Kernel("kernel", (), (own,), Axis("i", index(own)), (), work=index(1))
    assert not tiny(Repeat(t, (Run(kernel, (), (index(t),)),)))


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_a_pool_has_blocks_of_any_size(size):
    assert Pool().take(size).size >= size
