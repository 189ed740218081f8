"""IDX files, in which MNIST and its kin come: a magic number, the dimensions, and the elements, all big-endian."""

from __future__ import annotations

import math

import numpy as np

from fnflare.data.files import StrPath, check_split, find, read_bytes
from fnflare.errors import DataFileError

__all__ = ["mnist", "read_idx"]

_SOURCE = "http://yann.lecun.com/exdb/mnist (Fashion-MNIST: https://github.com/zalandoresearch/fashion-mnist)"
_WHAT = "an IDX file"
_MOST_DIMENSIONS = 32  # NumPy 2 has 64, in which no data set comes
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: StrPath) -> np.ndarray:
    """Read an IDX file, gzipped or not.

    Args:
        path: the file.

    Returns:
        Array of the shape and dtype that the file declares, in the machine's own byte order.

    Raises:
        MissingFileError: there is no such file.
        DataFileError: it is no IDX file, or has fewer or more bytes than its header says.

    Source: the format is described on the page of the MNIST database (LeCun, Cortes and Burges).

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     file.flush()
    ...     ff.data.read_idx(file.name)
    array([7, 8, 9], dtype=uint8)
    """
    content = read_bytes(path, _WHAT, _SOURCE)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        found = content[:4].hex(" ") or "an empty file"
        raise DataFileError(
            f"{path}: expected {_WHAT}, whose first bytes are 00 00, a type of 08 to 0e and the number of dimensions; "
            f"found {found}"
        )
    dtype, ndim = np.dtype(_DTYPES[content[2]]), content[3]
    if ndim > _MOST_DIMENSIONS:
        raise DataFileError(f"{path}: its header says {ndim} dimensions; arrays have {_MOST_DIMENSIONS} at most")
    start = 4 + 4 * ndim
    if len(content) < start:
        raise DataFileError(f"{path}: its {ndim} dimensions end at byte {start}; the file has {len(content)} bytes")
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "too long"
        raise DataFileError(
            f"{path}: {state}: its header says shape {shape} of {dtype.name}, which makes {expected} bytes, "
            f"found {len(content)}"
        )
    try:
        array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    except ValueError as error:  # an empty array with other axes so long that NumPy cannot count the bytes
        raise DataFileError(f"{path}: its header says shape {shape}, which is impossible ({error})") from error
    return array.astype(dtype.newbyteorder("="))


def mnist(folder: StrPath, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Read MNIST, Fashion-MNIST or another set in the same four files.

    Args:
        folder: where ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the two ``t10k-`` files are, each
            gzipped (``.gz``) or not.
        split: ``"train"`` or ``"test"``.

    Returns:
        Images, uint8 of shape (N, 28, 28), 0 for the ground and 255 for full ink; labels, int64 of shape (N,).

    Raises:
        ArgumentError: there is no such split.
        MissingFileError: a file is not there.
        DataFileError: a file is truncated, foreign, or there are not as many labels as images.

    Source: LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998.
    """
    check_split(split, ("train", "test"))
    prefix = "train" if split == "train" else "t10k"
    images_path = find(folder, _variants(f"{prefix}-images", "idx3-ubyte"), f"the {split} images of MNIST", _SOURCE)
    labels_path = find(folder, _variants(f"{prefix}-labels", "idx1-ubyte"), f"the {split} labels of MNIST", _SOURCE)
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, array, ndim in ((images_path, images, 3), (labels_path, labels, 1)):
        if array.ndim != ndim or array.dtype != np.uint8:
            raise DataFileError(f"{path}: expected {ndim} dimensions of uint8, found {array.shape} of {array.dtype}")
    if len(images) != len(labels):
        raise DataFileError(f"{labels_path}: expected a label for each of {len(images)} images, found {len(labels)}")
    return images, labels.astype(np.int64)


def _variants(stem: str, kind: str) -> list[str]:
    """The names under which the files go about: some unpackers write a dot for the second dash."""
    return [f"{stem}-{kind}.gz", f"{stem}-{kind}", f"{stem}.{kind}.gz", f"{stem}.{kind}"]
