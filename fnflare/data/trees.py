"""Labelled parse trees in the bracketed form of the Penn Treebank, in which the Stanford Sentiment Treebank comes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from fnflare.data.files import StrPath, check_split, find, read_lines, shown
from fnflare.errors import ArgumentError, DataFileError

__all__ = ["Tree", "parse_tree", "read_trees", "sst"]

_SOURCE = "https://nlp.stanford.edu/sentiment (trainDevTestTrees_PTB.zip)"
_TOKEN = re.compile(r"[()]|[^ ()\t]+")  # not \s: a few words of the treebank hold a no-break space
_ESCAPES = (("(", "-LRB-"), (")", "-RRB-"), ("/", "\\/"), ("*", "\\*"))


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
class Tree:
    """A node of a parse tree with all that is below it; immutable.

    It has either a word or children. It is a leaf to `fnflare.tree`, so that transforms pass it through untouched.
    No method recurses: a chain of a million nodes is as good as any other tree.

    Attributes:
        label: of this node; in the Stanford Sentiment Treebank 0 (very negative) to 4 (very positive).
        word: of a leaf, None elsewhere.
        children: of an inner node, from left to right; empty for a leaf.

    >>> tree = ff.data.parse_tree("(3 (2 not) (1 bad))")
    >>> tree.label, [child.word for child in tree.children], tree.size
    (3, ['not', 'bad'], 3)
    """

    label: int
    word: str | None = None
    children: tuple[Tree, ...] = ()

    def __post_init__(self) -> None:
        if (self.word is None) == (not self.children):
            raise ArgumentError("Tree: a node has either a word or children")

    @property
    def is_leaf(self) -> bool:
        """Whether the node has a word and no children."""
        return self.word is not None

    def nodes(self) -> Iterator[Tree]:
        """All nodes, each before its children, from left to right."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def leaves(self) -> list[Tree]:
        """The leaves, from left to right."""
        return [node for node in self.nodes() if node.is_leaf]

    def words(self) -> list[str]:
        """The words of the leaves, from left to right: the sentence."""
        return [node.word for node in self.nodes() if node.word is not None]

    @property
    def size(self) -> int:
        """How many nodes there are, this one and the leaves included."""
        return sum(1 for _ in self.nodes())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree):
            return NotImplemented
        return self is other or self._key() == other._key()

    def __hash__(self) -> int:
        return hash(tuple(self._key()))

    def _key(self) -> list[tuple[int, str | None, int]]:
        # Nodes in this order with the number of their children determine the tree.
        return [(node.label, node.word, len(node.children)) for node in self.nodes()]

    def __str__(self) -> str:
        """The bracketed form, which `parse_tree` reads."""
        parts: list[str] = []
        stack: list[Tree | None] = [self]
        while stack:
            node = stack.pop()
            if node is None:
                parts.append(")")
            elif node.word is not None:
                parts.append(f" ({node.label} {_escape(node.word)})")
            else:
                parts.append(f" ({node.label}")
                stack.append(None)
                stack.extend(reversed(node.children))
        return "".join(parts)[1:]

    def __repr__(self) -> str:
        return f"Tree({str(self)!r})"


def parse_tree(text: str) -> Tree:
    """Read one tree from its bracketed form.

    Args:
        text: ``(label word)`` for a leaf and ``(label tree tree ...)`` for an inner node, labels being integers.
            The treebank's escapes are undone: ``-LRB-`` becomes a bracket and ``\\/`` a slash.

    Returns:
        The `Tree`.

    Raises:
        DataFileError: the text is not of this form; the message gives the column.

    >>> print(ff.data.parse_tree("(4 (2 a) (3 (3 fine) (2 film)))"))
    (4 (2 a) (3 (3 fine) (2 film)))
    """
    # A frame is the label of an open node, the words and the trees that have come in it so far.
    frames: list[tuple[int, list[str], list[Tree]]] = []
    done: Tree | None = None
    tokens = _TOKEN.finditer(text)
    for token in tokens:
        if done is not None:
            raise _unexpected(token, "the end of the line after a whole tree")
        if token[0] == "(":
            frames.append((_label(next(tokens, None), text), [], []))
        elif not frames:
            raise _unexpected(token, "'('")
        elif token[0] != ")":
            frames[-1][1].append(_unescape(token[0]))
        else:
            label, words, children = frames.pop()
            if (len(words), bool(children)) not in ((1, False), (0, True)):
                raise _unexpected(token, "one word or some trees before it")
            node = Tree(label, words[0]) if words else Tree(label, None, tuple(children))
            if frames:
                frames[-1][2].append(node)
            else:
                done = node
    if done is None:
        raise DataFileError(f"column {len(text) + 1}: the line ends with {len(frames)} brackets open; it is truncated")
    return done


def _label(token: re.Match[str] | None, text: str) -> int:
    if token is None:
        raise DataFileError(f"column {len(text) + 1}: expected a label, found the end of the line; it is truncated")
    try:
        return int(token[0])
    except ValueError:
        raise _unexpected(token, "an integer label") from None


def _unexpected(token: re.Match[str], expected: str) -> DataFileError:
    return DataFileError(f"column {token.start() + 1}: expected {expected}, found {shown(token[0])}")


def _escape(word: str) -> str:
    for plain, escaped in _ESCAPES:
        word = word.replace(plain, escaped)
    return word


def _unescape(word: str) -> str:
    for plain, escaped in _ESCAPES:
        word = word.replace(escaped, plain)
    return word


def read_trees(path: StrPath) -> list[Tree]:
    """Read a file with one bracketed tree a line, gzipped or not; empty lines are passed over.

    Raises:
        MissingFileError: there is no such file.
        DataFileError: a line is not of the form; the message gives file, line and column.
    """
    trees = []
    for number, line in read_lines(path, "one tree a line", _SOURCE):
        if line.strip():
            try:
                trees.append(parse_tree(line))
            except DataFileError as error:
                raise DataFileError(f"{path}, line {number}, {error}") from None
    if not trees:
        raise DataFileError(f"{path}: expected one tree a line, found an empty file")
    return trees


def sst(folder: StrPath, split: str = "train") -> list[Tree]:
    """Read the trees of the Stanford Sentiment Treebank, whose nodes have labels from 0 to 4.

    Args:
        folder: where ``train.txt``, ``dev.txt`` and ``test.txt`` are, or the one with the folder ``trees`` of them.
        split: ``"train"``, ``"dev"`` or ``"test"``.

    Raises:
        ArgumentError: there is no such split.
        MissingFileError: the file is not there.
        DataFileError: a line is not a tree.

    Source: Socher et al., Recursive deep models for semantic compositionality over a sentiment treebank, 2013.
    """
    check_split(split, ("train", "dev", "test"))
    names = [f"{split}.txt", f"trees/{split}.txt", f"{split}.txt.gz"]
    return read_trees(find(folder, names, f"the {split} trees of the Stanford Sentiment Treebank", _SOURCE))
