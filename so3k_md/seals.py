"""Seals files: the seal is the SHA-256 of all bytes before it, at the end of the file.

A reader compares the two before it uses the file. This detects any damage (flipped bits, a truncated end,
bytes lost or added). It does not detect malice, because whoever changes a file on purpose can seal it again.
Zip archives, as torch writes them, contain the seal as their comment; libraries end with it.
"""

import hashlib
import struct
import zipfile
from pathlib import Path
from typing import Literal, NamedTuple

from so3k_md.errors import So3kError

TAG = b"so3k-md sha256 "  # lammps_plugin/src/seal.cpp has the same
LENGTH = len(TAG) + 64
END_OF_ZIP = b"PK\x05\x06"
END_SIZE = 22  # bytes of the end record of a zip archive without a comment
BLOCK = 1 << 20

# exceptions of zipfile for invalid headers
ZIP_ERRORS = (OSError, ValueError, LookupError, RuntimeError, EOFError, struct.error, zipfile.BadZipFile)

State = Literal["intact", "damaged", "absent"]


class Look(NamedTuple):
    """The result of one reading of a file."""

    state: State  # of its seal
    digest: bytes  # SHA-256 of the bytes before the seal, or of the whole file without a seal


def seal(data: bytes) -> bytes:
    """The same bytes, followed by their seal."""
    return data + TAG + hashlib.sha256(data).hexdigest().encode()


def seal_archive(archive: bytes) -> bytes:
    """The same zip archive, which must have no comment, with its seal as the comment."""
    end = archive[-END_SIZE:]
    if not end.startswith(END_OF_ZIP) or end[-2:] != b"\0\0":
        raise ValueError("only a zip archive without a comment can be sealed")
    return seal(archive[:-2] + LENGTH.to_bytes(2, "little"))


def seal_of(path: str | Path) -> State:
    """Whether a file is unchanged since it was sealed, or has no seal.

    Raises:
        So3kError: the file cannot be read.
    """
    return look_at(path).state


def look_at(path: str | Path) -> Look:
    """`seal_of` and the digest of a file, from a single reading.

    Raises:
        So3kError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            rest = file.seek(0, 2) - LENGTH
            file.seek(max(rest, 0))
            end = file.read()
            sealed = rest >= 0 and end.startswith(TAG)
            rest = rest if sealed else file.tell()
            file.seek(0)
            digest = hashlib.sha256()
            while block := file.read(min(BLOCK, rest)):
                digest.update(block)
                rest -= len(block)
    except OSError as error:
        raise So3kError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    intact = end[len(TAG) :] == digest.hexdigest().encode()
    return Look(("intact" if intact else "damaged") if sealed else "absent", digest.digest())


def members_are_intact(path: str | Path) -> bool:
    """Whether each member of a zip archive is stored without compression, once, and has its CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = all(
                member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
                for member in members
            )
            once = len({member.filename for member in members}) == len(members)
            apart = sum(member.file_size for member in members) <= Path(path).stat().st_size
            return stored and once and apart and archive.testzip() is None
    except ZIP_ERRORS:
        return False
