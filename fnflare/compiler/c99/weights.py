"""The constants of a library of C: arrays written out in its source, or read from a file beside it.

Arrays go in; definitions of C come out, and the bytes of the file with the function that loads it. The file is
little-endian: a magic of 8 bytes, the number 0x01020304 and the number of arrays, of 32 bits each; then for each array
its number of bytes, of 64 bits, and its elements.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fnflare.compiler.c99.layout import WIDTH
from fnflare.compiler.c99.literals import C_TYPES, FLOATS, literal
from fnflare.nest import DTYPES

__all__ = ["Array", "definition", "file_of", "loader", "storage"]

#: An array: what it is called in C, the machine type of its elements, and those.
Array = tuple[str, str, np.ndarray[Any, Any]]
_MAGIC = b"fnflare1"
_ORDER = 0x01020304


def definition(name: str, dtype: str, array: np.ndarray[Any, Any]) -> str:
    """An array as a constant of C, its floating-point numbers exact, in hexadecimal."""
    numbers = array.ravel().tolist()
    texts = map(_hexadecimal, numbers) if dtype in FLOATS else (literal(n, dtype).text for n in numbers)
    suffix = "f" if dtype == "f32" else ""
    if dtype in FLOATS:
        texts = (t + suffix if t[-1].isdigit() else t for t in texts)
    lines = _filled(texts) or ["    0"]
    head = f"static const {C_TYPES[dtype]} {name}[{max(len(numbers), 1)}] = {{"
    return "\n".join([f"/* {array.shape} */", head, *lines, "};"])


def storage(name: str, dtype: str, array: np.ndarray[Any, Any]) -> str:
    """Memory for an array that is read from a file."""
    return f"static {C_TYPES[dtype]} {name}[{max(array.size, 1)}]; /* {array.shape} */"


def file_of(arrays: Sequence[Array]) -> bytes:
    """The file that holds arrays."""
    parts = [_MAGIC, struct.pack("<II", _ORDER, len(arrays))]
    for _, dtype, array in arrays:
        data = np.ascontiguousarray(array, DTYPES[dtype].newbyteorder("<")).tobytes()
        parts += [struct.pack("<Q", len(data)), data]
    return b"".join(parts)


def loader(name: str, arrays: Sequence[Array]) -> str:
    """The function that reads the file into the arrays' memory, and what it needs."""
    reads = "\n".join(
        f"    whole = whole && {name}_read({array}, {data.size} * sizeof *{array}, file);" for array, _, data in arrays
    )
    return f"""static int {name}_loaded;

static int {name}_read(void *array, size_t bytes, FILE *file) {{
    uint64_t stored;
    if (fread(&stored, sizeof stored, 1, file) != 1 || stored != bytes) return 0;
    return fread(array, 1, bytes, file) == bytes;
}}

int {name}_load(const char *path) {{
    char magic[8];
    uint32_t marks[2]; /* the order of bytes, the number of arrays */
    FILE *const file = fopen(path, "rb");
    {name}_loaded = 0;
    if (!file) return {name.upper()}_NO_FILE;
    int whole = fread(magic, sizeof magic, 1, file) == 1 && memcmp(magic, "{_MAGIC.decode()}", 8) == 0;
    whole = whole && fread(marks, sizeof marks, 1, file) == 1;
    whole = whole && marks[0] == 0x{_ORDER:08x}u && marks[1] == {len(arrays)}u;
{reads}
    whole = whole && fgetc(file) == EOF;
    fclose(file);
    {name}_loaded = whole;
    return whole ? {name.upper()}_OK : {name.upper()}_BAD_FILE;
}}"""


def _hexadecimal(value: float) -> str:
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    digits, exponent = value.hex().split("p")
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}p{exponent}"


def _filled(texts: Iterable[str]) -> list[str]:
    """Numbers in lines, several each."""
    lines: list[str] = []
    line = "   "
    for t in texts:
        if len(line) + len(t) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {t},"
    return [*lines, line] if line.strip() else lines
