"""Splits an extended XYZ file into blocks of text, one for each frame, and checks them for ASE."""

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from so3k_md.errors import So3kError

LONGEST_LINE = 10_000_000  # characters
MOST_ATOMS = 10_000_000
OPENERS: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
DAMAGED = (EOFError, OSError, lzma.LZMAError, zlib.error)
COLUMNS = re.compile(r'\bProperties\s*=\s*"?([^\s"]+)', re.I)
PLAIN = "species:S:1:pos:R:3"  # columns of a file that states none
# a key and its value, quoted, in brackets or bare
ENTRY = re.compile(r"""([^\s="'{}\[\]]+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|[^\s"]+)""")
FLAG = re.compile(r"(T|F|True|False|0|1)", re.I)


class Block(NamedTuple):
    """The text of one frame of the file."""

    lines: list[str]
    row: int  # of its first line, from 1


def is_compressed(path: Path) -> bool:
    """Whether a name has the ending of a supported compression."""
    return path.suffix.lower() in OPENERS


def read_blocks(path: Path) -> Iterator[Block]:
    """The frames of a plain or compressed file in order.

    The reader of ASE stops at a blank line without an error.

    Raises:
        So3kError: names the frame and the faulty line.
    """
    try:
        with OPENERS.get(path.suffix.lower(), open)(path, mode="rt", encoding="utf-8-sig") as file:
            yield from _blocks(path, _lines(path, file))
    except UnicodeDecodeError:
        raise So3kError(f"{path}: is not text; give an extended XYZ or an npz file") from None
    except DAMAGED as error:
        raise So3kError(
            f"{path}: cannot be read to its end ({' '.join(str(error).split())[:80]}); fetch it again"
        ) from error


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    """Lines of bounded length."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise So3kError(
                f"{path}: line {number} is longer than {LONGEST_LINE:,} characters; no structure has "
                "such a line: correct the file"
            )
        yield line


def _blocks(path: Path, lines: Iterator[str]) -> Iterator[Block]:
    """Blocks of lines: a count, a comment, the atoms, and the cell vectors that some programs append."""
    row, frame, head = 1, 0, next(lines, None)
    while head is not None:
        where = f"{path}, frame {frame}"
        if not re.fullmatch(r"\s*[0-9]+\s*", head):
            after = next((line for line in lines if line.strip()), None)
            if not head.strip() and after is None:
                return
            raise So3kError(
                f"{where}: line {row} must be the number of atoms, not {head.strip()[:40]!r}; "
                "correct the count of the frame before or the file"
            )
        if len(head.strip()) > 12 or int(head) > MOST_ATOMS:
            raise So3kError(
                f"{where}: line {row} states {head.strip()[:20]} atoms, more than {MOST_ATOMS:,}; correct it"
            )
        count = int(head)
        block = [head, *islice(lines, count + 1)]
        if len(block) < count + 2:
            raise So3kError(
                f"{where}: the file states {count} atoms but ends after {max(0, len(block) - 2)}; "
                "it is truncated: fetch it again or remove the frame"
            )
        _check_comment(block[1], where)
        _check_columns(block, where)
        following = next(lines, None)
        while following is not None and following.lstrip().startswith("VEC"):
            block.append(following)
            following = next(lines, None)
        yield Block(block, row)
        row, frame, head = row + len(block), frame + 1, following


def _check_comment(comment: str, where: str) -> None:
    """Refuse repeated keys, periodic axes that are not flags, and cells that ASE ignores."""
    entries = ENTRY.findall(comment)
    keys = [key for key, _ in entries]
    for key in keys:
        if keys.count(key) > 1:
            raise So3kError(f"{where}: {key} appears twice in the comment line; remove one")
    for key, value in entries:
        flags = re.split(r"[\s,]+", value.strip("\"'{}[] "))
        if key.lower() == "pbc" and not all(FLAG.fullmatch(flag) for flag in flags):
            raise So3kError(f'{where}: pbc={value[:40]} is not understood; write pbc="T T T" or "F F F"')
        if key.lower() in ("lattice", "cell", "box") and "Lattice" not in keys:
            raise So3kError(
                f"{where}: the cell under '{key}' is not read; write Lattice=\"...\" with the nine numbers "
                "of the vectors, or remove it"
            )


def _check_columns(block: list[str], where: str) -> None:
    """Refuse a number of columns that differs from that of the rows, before a parser allocates memory."""
    found = COLUMNS.search(block[1])
    named = found.group(1) if found else PLAIN
    counts = named.split(":")[2::3]
    if not all(re.fullmatch("[0-9]{1,18}", count) for count in counts):
        raise So3kError(
            f"{where}: cannot be read: Properties={named[:60]} is not a list of name:type:columns; "
            "correct the comment line"
        )
    announced = sum(map(int, counts))
    for atom, row in enumerate(block[2:]):
        present = len(row.split())
        if announced != present:
            who = "Properties states" if found else "without Properties there must be"
            raise So3kError(
                f"{where}: cannot be read: {who} {announced} columns, but atom {atom} has "
                f"{present}; correct the comment line or the rows"
            )
