"""Where memory lies: sizes as arithmetic, blocks that are kept, and which programs are tiny."""

import itertools

import pytest
from native import lowered

from fnflare.compiler import layout
from fnflare.compiler.arena import Pool, _block
from fnflare.compiler.layout import Layouts, evaluate, is_tiny
from fnflare.compiler.memory import plan
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
    assert len(a) >= 1000
    pool.give(a)
    assert pool.take(2000) is not a
    assert pool.take(500) is a


def test_a_pool_keeps_few_blocks():
    pool = Pool()
    blocks = [pool.take(1 << n) for n in range(10)]
    for b in blocks:
        pool.give(b)
    assert [len(pool.take(1)) for _ in range(4)] == [512, 256, 128, 64]
    assert not any(pool.take(1) is b for b in blocks)


def test_a_block_lies_in_its_memory():
    for size in (1, 63, 64, 65, 4096):
        b = _block(size)
        start, whole = (x.__array_interface__["data"][0] for x in (b, b.base))
        assert start % 64 == 0
        assert len(b) == size
        assert whole <= start and start + size <= whole + b.base.nbytes


# -- layouts for sizes -----------------------------------------------------------------------------


def scratch(name, size):
    return Buffer(name, "f32", size, "scratch")


@pytest.mark.parametrize("grows", [True, False])
def test_buffers_in_use_together_never_overlap_whatever_the_sizes(grows):
    m, n = Size("m"), Size("n")
    a, b = index(m), index(n)
    sizes = [a * b, b, a + b * 3, index(5), a * a]
    if not grows:
        sizes[1] = 2000 - b
        sizes[3] = b // 3 + 1
    buffers = [(scratch(f"s{i}", size), i, i + 1) for i, size in enumerate(sizes)]
    program = lowered([], [], scratch=buffers, sizes=[(m, 0, 0), (n, 0, 1)])
    layouts = Layouts(program)
    for now in itertools.product((1, 2, 7, 16, 17, 31, 40), (1, 3, 15, 33, 100, 1000)):
        found = layouts.find(now)
        assert found is layouts.find(now)
        assert tuple(found.sizes) == now
        values = dict(zip((m, n), now, strict=True))
        spans = [(int(at), int(at) + 4 * evaluate(s, values)) for at, s in zip(found.addresses, sizes, strict=True)]
        assert all(at % 64 == 0 and end <= found.total for at, end in spans)
        for (x, x_end), (y, y_end) in itertools.pairwise(spans):
            assert x_end <= y or y_end <= x


def test_many_lengths_share_a_few_plans(monkeypatch):
    n, made = Size("n"), []
    monkeypatch.setattr(layout, "plan", lambda wanted: made.append(wanted) or plan(wanted))
    program = lowered([], [], scratch=[(scratch("s", index(n) * 100), 0, 1)], sizes=[(n, 0, 0)])
    layouts = Layouts(program)
    for length in range(1, 1025):
        exact = -(-length * 400 // 64) * 64
        assert exact <= layouts.find((length,)).total <= exact * 1.13 + 64
    assert len(made) < 75


def test_old_entries_go_first():
    entries = dict.fromkeys(range(2000))
    layout.keep_newest(entries)
    assert list(entries) == list(range(976, 2000))


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
    assert len(Pool().take(size)) >= size
