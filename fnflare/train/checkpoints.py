"""Checkpoints: one file that always holds a whole state of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fnflare import io
from fnflare.errors import ArgumentError

__all__ = ["Checkpointer"]


class Checkpointer:
    """Saves a pytree to one file every so many steps, and gives it back.

    The file is replaced in one step by `fnflare.io.save`, so that whatever happens there is a whole one. `fit` uses
    one; so may a loop of your own:

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> checkpointer = ff.train.Checkpointer(folder.name + "/run.npz", every=100)
    >>> params, start = checkpointer.restore(like=(np.zeros(2), 0)) or (np.zeros(2), 0)
    >>> for step in range(start, 250):
    ...     params = params + 1
    ...     if checkpointer.due(step + 1):
    ...         checkpointer.save((params, step + 1))
    >>> checkpointer.restore(like=(np.zeros(2), 0))
    (array([200., 200.]), 200)
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str], every: int | None = None) -> None:
        """A checkpointer that has done nothing yet.

        Args:
            path: the file, ``.npz`` or ``.safetensors``. A folder that lacks is made when the first is saved.
            every: how many steps lie between two checkpoints; None where `due` is never to say so.

        Raises:
            ArgumentError: `every` is not positive.
        """
        if every is not None and every < 1:
            raise ArgumentError(f"Checkpointer: every must be at least 1 step, got {every}")
        self.path, self.every = Path(path), every

    def due(self, step: int) -> bool:
        """Whether it is time to save, after that many steps."""
        return self.every is not None and step % self.every == 0

    def save(self, state: Any) -> None:
        """Replace the checkpoint.

        Args:
            state: any pytree that `fnflare.io.save` takes.

        Raises:
            ArgumentError, DtypeError: as `fnflare.io.save`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        io.save(self.path, state)

    def restore(self, like: Any) -> Any:
        """The checkpoint, or None where there is none yet.

        Args:
            like: a tree of the same structure, as in `fnflare.io.load`.

        Raises:
            CheckpointError: the file is damaged, foreign, or does not match; the message names the first path.
        """
        return io.load(self.path, like=like) if self.path.exists() else None
