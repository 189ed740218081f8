"""Random words: the rounds of Philox as integer arithmetic, a block of four words at a time."""

from __future__ import annotations

__all__: list[str] = []
