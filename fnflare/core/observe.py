"""Looking at operations as they run: what a profile and the search for NaN are built on.

An observer goes in, a function of one `Call`; while it observes, every operation whose kernel this thread runs comes
to it, with its arguments, its answer, its time and its place. Kernels are exchanged for observed ones for so long
and put back when nobody observes any more, so that nothing is paid otherwise.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import FrameType
from typing import Any

from fnflare.core.primitive import Primitive, primitives
from fnflare.core.source import Source, current_source, sourced, wanting_sources

__all__ = ["Call", "Observer", "observed", "observing", "overhead", "plain_kernel", "run_kernel", "stamping"]


class Call:
    """One run of a kernel.

    Attributes:
        prim: the primitive.
        args: its arguments: arrays and numbers.
        params: its static parameters.
        ans: its answer.
        seconds: the time it took, without that of the observed kernels that it ran in turn.
    """

    __slots__ = ("_frame", "ans", "args", "params", "prim", "seconds")

    def __init__(
        self, prim: Primitive, args: tuple[Any, ...], params: dict[str, Any], ans: Any, seconds: float, frame: FrameType
    ) -> None:
        self.prim = prim
        self.args = args
        self.params = params
        self.ans = ans
        self.seconds = seconds
        self._frame = frame

    @property
    def source(self) -> Source | None:
        """Its place; to be asked for while the observer runs."""
        return current_source(self._frame)


Observer = Callable[[Call], None]


class _Thread(threading.local):
    """Who observes a thread, and its times: of observed calls within the running one, and of observing itself."""

    observers: tuple[Observer, ...] = ()
    inner: float = 0.0
    overhead: float = 0.0


_thread = _Thread()
_lock = threading.Lock()
_blocks = 0  # how many blocks of all threads observe


class _ObservedKernel:
    """What stands in the place of a kernel while somebody observes."""

    __slots__ = ("kernel", "prim")

    def __init__(self, prim: Primitive, kernel: Callable[..., Any]) -> None:
        self.prim = prim
        self.kernel = kernel

    def __call__(self, *args: Any, **params: Any) -> Any:
        if not _thread.observers:  # another thread does
            return self.kernel(*args, **params)
        return _watched(self.prim, self.kernel, args, params, sys._getframe(1))


def _watched(
    prim: Primitive, kernel: Callable[..., Any], args: tuple[Any, ...], params: dict[str, Any], frame: FrameType
) -> Any:
    """Run a kernel, time it, and tell the observers."""
    thread = _thread
    entered = perf_counter()
    before = thread.inner
    thread.inner = 0.0
    seconds = 0.0
    try:
        start = perf_counter()
        ans = kernel(*args, **params)
        seconds = perf_counter() - start - thread.inner
        observers = thread.observers
        thread.observers = ()  # what an observer computes is nobody's business
        try:
            call = Call(prim, args, params, ans, seconds, frame)
            for observer in observers:
                observer(call)
        finally:
            thread.observers = observers
        return ans
    finally:
        passed = perf_counter() - entered
        thread.overhead += passed - seconds - thread.inner
        thread.inner = before + passed


def observed() -> bool:
    """Whether somebody observes this thread."""
    return bool(_thread.observers)


def overhead() -> float:
    """The seconds that this thread has spent on observing, ever: the difference of two readings is of use."""
    return _thread.overhead


def plain_kernel(prim: Primitive) -> Callable[..., Any]:
    """The kernel of a primitive itself, whoever observes: what may be kept for later."""
    kernel = prim.kernel
    return kernel.kernel if type(kernel) is _ObservedKernel else kernel


def run_kernel(prim: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """Run the kernel of a primitive that is not in the registry, in the sight of the observers."""
    if not _thread.observers:
        return prim.kernel(*args, **params)
    return _watched(prim, prim.kernel, args, params, sys._getframe(1))


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Show the operations of this thread to `observer` for the time of a ``with`` block.

    Primitives that carry a function or a program are not shown: what they run is. What an observer raises
    comes out of the operation that it was shown.
    """
    before = _thread.observers
    _install()
    _thread.observers = (*before, observer)
    try:
        with wanting_sources():
            yield
    finally:
        _thread.observers = before
        _uninstall()


def _install() -> None:
    global _blocks  # noqa: PLW0603  (kernels are the process's)
    with _lock:
        _blocks += 1
        for prim in primitives().values():
            if not prim.carries and type(prim.kernel) is not _ObservedKernel:
                prim.kernel = _ObservedKernel(prim, prim.kernel)


def _uninstall() -> None:
    global _blocks  # noqa: PLW0603
    with _lock:
        _blocks -= 1
        if _blocks == 0:
            for prim in primitives().values():
                prim.kernel = plain_kernel(prim)


@contextmanager
def stamping() -> Iterator[None]:
    """For the time of a ``with`` block in which a program is made: tapes remember places, which are counted from here
    (the layers within, the phase anew), and nobody observes, since nothing is computed yet."""
    observers = _thread.observers
    _thread.observers = ()
    frame = sys._getframe(2)  # the caller's: that of the context manager lies between
    here = current_source(frame)
    root = None if here is None else here._replace(path=(), phase="forward")
    try:
        with wanting_sources(), sourced(root, frame):
            yield
    finally:
        _thread.observers = observers
