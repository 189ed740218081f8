"""Making batches ahead of their use, in a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

__all__ = ["prefetch"]

T = TypeVar("T")


class _End(NamedTuple):
    """The last thing in the queue: why there is no more."""

    error: BaseException | None


def prefetch(items: Iterator[T], size: int) -> Iterator[T]:
    """Iterate over `items` with up to `size` of them made ahead by a background thread.

    An exception in `items` comes out here, after the items before it. The thread ends with the iteration, also when
    that is left early or fails; NumPy releases the interpreter lock in most of its work, so that the two overlap.

    Args:
        items: what to iterate over; it is used in the background thread alone.
        size: at least 1.

    >>> from fnflare.data.prefetch import prefetch
    >>> list(prefetch(iter("abc"), 2))
    ['a', 'b', 'c']
    """
    ahead: queue.Queue[T | _End] = queue.Queue(size)
    stop = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                ahead.put(item)
                if stop.is_set():
                    return
        except BaseException as caught:  # whatever it is, it belongs to who waits for the items
            error = caught
        ahead.put(_End(error))

    thread = threading.Thread(target=work, name="fnflare-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ahead.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        # The thread looks at `stop` after each put. Emptying the queue once frees a put that waits, and leaves room
        # for the one that may yet come before that look.
        stop.set()
        with ahead.mutex:
            ahead.queue.clear()
            ahead.not_full.notify()
        thread.join()
