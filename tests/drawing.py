"""Random numbers for tests: each test draws the same ones, whatever ran before it and in whatever thread it runs."""

from __future__ import annotations

import os
import threading
import zlib
from typing import Any

import numpy as np


class Draws:
    """A generator of NumPy's that begins again with every test, and in every thread of one.

    A generator of a module would give a test numbers that depend on which tests ran before it. What a module draws
    while it is imported has numbers of its own, and so has each test.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._own = threading.local()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # as copy and pickle ask for
            raise AttributeError(name)
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]  # without "(setup)", "(call)"
        if getattr(self._own, "test", None) != test:
            self._own.test = test
            self._own.generator = np.random.default_rng([self._seed, zlib.crc32(test.encode())])
        return getattr(self._own.generator, name)
