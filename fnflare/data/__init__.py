"""Data: readers of the usual sets, vocabularies, and loaders that cut them into batches.

A reader takes the path of a file or folder that is already there and returns plain arrays, strings and trees; nothing
is downloaded. A `DataLoader` turns any pytree of them into batches, shuffled by a key:

>>> import numpy as np
>>> from fnflare import data, random
>>> images, labels = np.zeros((10, 28, 28), np.uint8), np.arange(10)
>>> loader = data.DataLoader((images, labels), batch_size=4, key=random.key(0))
>>> [x.shape for x, y in loader]
[(4, 28, 28), (4, 28, 28), (2, 28, 28)]

A missing file is a `MissingFileError` that says where it can be had, a truncated or foreign one a `DataFileError` that
gives the file, the line or byte, what was expected there and what was found.
"""

from fnflare.data.idx import mnist, read_idx
from fnflare.data.imdb import Reviews, imdb
from fnflare.data.loader import DataLoader
from fnflare.data.one_hot import one_hot
from fnflare.data.tables import Table, read_table
from fnflare.data.text import read_text, streams, tokenize, windows
from fnflare.data.trees import Tree, parse_tree, read_trees, sst
from fnflare.data.vectors import WordVectors, read_vectors
from fnflare.data.vocabulary import Vocabulary

__all__ = [
    "DataLoader",
    "Reviews",
    "Table",
    "Tree",
    "Vocabulary",
    "WordVectors",
    "imdb",
    "mnist",
    "one_hot",
    "parse_tree",
    "read_idx",
    "read_table",
    "read_text",
    "read_trees",
    "read_vectors",
    "sst",
    "streams",
    "tokenize",
    "windows",
]
