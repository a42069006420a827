"""Output files: checked before the work, written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from so3k_md.errors import So3kError


def check_output(path: str | Path, overwrite: bool) -> Path:
    """Refuse an output that exists or cannot be written, before any work is done for it.

    Raises:
        So3kError: the file exists (without `overwrite`), is a folder, or its folder is missing or read-only.
    """
    path = Path(path)
    if path.is_dir():
        raise So3kError(f"{path} is a folder, a file name is needed: choose another name")
    if path.exists() and not path.is_file():  # --overwrite would put a file in its place
        raise So3kError(f"{path} is a device or a pipe, a file is needed: choose another name")
    if path.exists() and not overwrite:
        raise So3kError(f"{path} exists already: choose another name or pass --overwrite")
    folder = path.parent
    if not folder.is_dir():
        raise So3kError(f"the folder {folder} for {path.name} does not exist: create it first")
    if not os.access(folder, os.W_OK):
        raise So3kError(f"the folder {folder} cannot be written: choose another one or change its rights")
    return path


def check_folder(path: str | Path) -> Path:
    """Refuse an output folder that cannot be made or written, before any work is done for it.

    Raises:
        So3kError: a file stands there or on the way, or the folder that holds it is read-only.
    """
    path = Path(path)
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir():
        raise So3kError(f"{existing} is a file, a folder is needed: choose another name")
    if not os.access(existing, os.W_OK):
        raise So3kError(f"the folder {existing} cannot be written: choose another one or change its rights")
    return path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place on success and vanishes on failure.

    Raises:
        So3kError: the operating system refuses the write (full disk, missing rights).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise So3kError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
