"""Batches of a data set, in an order that a key decides and that can be taken up again anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fnflare import random
from fnflare.data.columns import SequenceColumn, columns_of
from fnflare.data.prefetch import prefetch as prefetched
from fnflare.errors import ArgumentError, ShapeError
from fnflare.tree import unflatten

__all__ = ["DataLoader"]


class DataLoader:
    """Cuts a data set into batches; each ``for batch in loader`` is one epoch.

    The data are a pytree such as ``(images, labels)`` or ``{"text": texts, "label": labels}``, and a batch has the
    same structure. Each leaf holds one column:

    - an array with one example along its first axis gives an array;
    - a list of numbers gives an array;
    - a list of arrays (or lists of numbers) of unequal length gives a `Padded`, with their lengths;
    - a list of anything else, strings or parse trees, gives a list.

    Epoch e is shuffled with ``random.fold_in(key, e)``, so a key determines every epoch of a run. The position is
    counted as batches are handed out, prefetched or not: `state` saved after a batch and `restore`d in another
    process goes on with the next one. An epoch that is left early starts over in the next ``for``, unless the state
    is restored.

    >>> data = {"word": [[1, 2, 3], [4], [5, 6]], "label": np.array([0, 1, 0])}
    >>> loader = ff.data.DataLoader(data, batch_size=2, key=ff.random.key(0))
    >>> len(loader)
    2
    >>> sorted(label for batch in loader for label in batch["label"].tolist())
    [0, 0, 1]
    >>> next(iter(ff.data.DataLoader(data, batch_size=2)))["word"].lengths
    array([3, 1])
    """

    def __init__(
        self,
        data: Any,
        batch_size: int,
        *,
        key: np.ndarray | None = None,
        drop_last: bool = False,
        bucket: int | None = None,
        borders: Sequence[int] | None = None,
        lengths: ArrayLike | None = None,
        pad_value: Any = 0,
        multiple_of: int = 1,
        collate: Callable[[list[Any]], Any] | None = None,
        prefetch: int = 0,
    ) -> None:
        """A loader at the start of its first epoch.

        Args:
            data: pytree of columns, as above; it is not copied (lists of lists are turned into arrays once).
            batch_size: examples in a batch.
            key: shuffles the examples, anew in each epoch; without it they keep their order.
            drop_last: leave out batches of fewer than `batch_size` examples. Without it each example comes exactly
                once an epoch.
            bucket: sort the (shuffled) examples of each `bucket` batches by length before they are cut, so that
                sequences of like length meet and little is padded. With a key, the batches are then shuffled.
            borders: instead of `bucket`, rising lengths that divide the examples into groups (those shorter than
                ``borders[0]``, those shorter than ``borders[1]``, ..., the rest); no batch mixes groups.
            lengths: the length of each example, for `bucket` and `borders`; that of the first column of sequences by
                default.
            pad_value: what sequences are padded with.
            multiple_of: padded lengths are rounded up to a multiple of this.
            collate: makes a batch of the list of its examples, each of the structure of `data`, in place of the
                rules above.
            prefetch: how many batches a background thread makes ahead; 0 makes them when they are asked for.

        Raises:
            ArgumentError: an argument is out of range, both `bucket` and `borders` are given, the columns differ in
                length, there is no example or no batch, or there are no lengths to sort by.
            ShapeError: `lengths` has not one element for each example.
        """
        for name, value, least in (("batch_size", batch_size, 1), ("multiple_of", multiple_of, 1)):
            _check_at_least(name, value, least)
        _check_at_least("prefetch", prefetch, 0)
        self._columns, self._treedef = columns_of(data, pad_value, multiple_of)
        self._size = len(self._columns[0])
        self.batch_size, self._drop_last = batch_size, drop_last
        self._key, self._collate, self._ahead = key, collate, prefetch
        self._groups, self._lengths, self._chunk = self._plan(bucket, borders, lengths)
        self._batches = sum(self._count(len(group)) for group in self._groups)
        if not self._batches:
            raise ArgumentError(
                f"DataLoader: drop_last leaves no batch of {batch_size} from {self._size} examples; lessen batch_size"
            )
        self._epoch = self._batch = self._resume_at = 0

    def _plan(
        self, bucket: int | None, borders: Sequence[int] | None, lengths: ArrayLike | None
    ) -> tuple[list[np.ndarray], np.ndarray | None, int]:
        """The groups that batches are made within, and how many examples are sorted together, by which lengths."""
        everything = [np.arange(self._size)]
        if bucket is None and borders is None:
            return everything, None, 0
        if bucket is not None and borders is not None:
            raise ArgumentError("DataLoader: give bucket or borders, not both")
        of_examples = self._lengths_of_examples(lengths)
        if bucket is not None:
            _check_at_least("bucket", bucket, 1)
            return everything, of_examples, bucket * self.batch_size
        rising = np.asarray(borders)
        if rising.ndim != 1 or np.any(np.diff(rising) <= 0):
            raise ArgumentError(f"DataLoader: borders must be rising lengths, got {borders}")
        group_of = np.searchsorted(rising, of_examples, side="right")
        return [np.flatnonzero(group_of == g) for g in range(len(rising) + 1)], None, 0

    def _lengths_of_examples(self, lengths: ArrayLike | None) -> np.ndarray:
        if lengths is not None:
            array = np.asarray(lengths)
            if array.shape != (self._size,):
                raise ShapeError(f"DataLoader: lengths must have shape ({self._size},), got {array.shape}")
            return array
        for column in self._columns:
            if isinstance(column, SequenceColumn):
                return column.lengths
        raise ArgumentError(
            "DataLoader: bucket and borders need lengths; no column is a list of sequences, pass lengths="
        )

    def _count(self, examples: int) -> int:
        return examples // self.batch_size if self._drop_last else -(-examples // self.batch_size)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self._batches

    @property
    def epoch(self) -> int:
        """The epoch, from 0, that is under way or comes next."""
        return self._epoch

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch: from where `restore` has put the loader, from the start otherwise."""
        self._batch, self._resume_at = self._resume_at, 0
        epoch, first = self._epoch, self._batch
        batches = (self._make(places) for places in self._order(epoch)[first:])
        ready = prefetched(batches, self._ahead) if self._ahead else batches
        for number, batch in enumerate(ready, first + 1):
            self._epoch, self._batch = epoch, number
            yield batch
        self._epoch, self._batch = epoch + 1, 0

    def _order(self, epoch: int) -> list[np.ndarray]:
        """The places of the examples of each batch of an epoch."""
        order = np.arange(self._size)
        if self._key is not None:
            key = random.fold_in(self._key, epoch)
            order = random.permutation(key, self._size)
        batches = [batch for group in self._groups for batch in self._cut(self._within(order, group))]
        if self._key is not None and (self._chunk or len(self._groups) > 1):
            # Sorting put batches of like length next to each other; training wants them mixed.
            batches = [batches[i] for i in random.permutation(random.fold_in(key, 1), len(batches))]
        return batches

    def _within(self, order: np.ndarray, group: np.ndarray) -> np.ndarray:
        """The examples of a group, in the given order of all."""
        if len(group) == self._size:
            return order
        member = np.zeros(self._size, bool)
        member[group] = True
        return order[member[order]]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Consecutive batches, each chunk sorted by length before."""
        if self._lengths is not None:
            chunks = [order[i : i + self._chunk] for i in range(0, len(order), self._chunk)]
            order = np.concatenate([c[np.argsort(self._lengths[c], kind="stable")] for c in chunks])
        n = self.batch_size
        return [order[i * n : (i + 1) * n] for i in range(self._count(len(order)))]

    def _make(self, places: np.ndarray) -> Any:
        if self._collate is None:
            return unflatten(self._treedef, [column.batch(places) for column in self._columns])
        return self._collate([self._example(i) for i in places.tolist()])

    def _example(self, place: int) -> Any:
        return unflatten(self._treedef, [column.elements[place] for column in self._columns])

    def state(self) -> dict[str, int]:
        """Where the loader is.

        Returns:
            The epoch, the number of its batches that were handed out, and the numbers of examples and the batch size,
            by which `restore` recognises a loader of other data. All are integers, for `fnflare.io.save`.

        After the last batch of an epoch, while the ``for`` loop is still in it, all batches are handed out and
        restoring gives an epoch without any: what a program does at the end of an epoch is not passed over.
        """
        return {"epoch": self._epoch, "batch": self._batch, "examples": self._size, "batch_size": self.batch_size}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where a loader of the same data and arguments was; the next ``for`` goes on from there.

        Args:
            state: what `state` returned, its integers perhaps as arrays of shape ().

        Raises:
            ArgumentError: it is no such state, or that of a loader with other data or another batch size.
        """
        expected = self.state()
        if set(state) != set(expected):
            raise ArgumentError(f"DataLoader.restore: expected a dict of {', '.join(expected)}, got {state!r}")
        given = {name: int(value) for name, value in state.items()}
        for name in ("examples", "batch_size"):
            if given[name] != expected[name]:
                raise ArgumentError(
                    f"DataLoader.restore: the state is of a loader with {name} {given[name]}, this one has "
                    f"{expected[name]}; make it as the other was made"
                )
        if given["epoch"] < 0 or not 0 <= given["batch"] <= len(self):
            raise ArgumentError(
                f"DataLoader.restore: epoch {given['epoch']}, batch {given['batch']} is out of range; an epoch has "
                f"{len(self)} batches"
            )
        self._epoch = given["epoch"]
        self._batch = self._resume_at = given["batch"]


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ArgumentError(f"DataLoader: {name} must be at least {least}, got {value}")
