"""Checks output files before the work, and writes them atomically."""

import fcntl
import os
import re
import socket
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
    if path.exists() and not path.is_file():  # --overwrite would replace it by a file
        raise So3kError(f"{path} is a device or a pipe, a file is needed: choose another name")
    if path.exists() and not overwrite:
        raise So3kError(f"{path} exists already: choose another name or pass --overwrite")
    folder = path.parent
    if not folder.is_dir():
        raise So3kError(f"the folder {folder} for {path.name} does not exist: create it first")
    if not os.access(folder, os.W_OK):
        raise So3kError(
            f"the folder {folder} cannot be written: choose another one or change its permissions"
        )
    remove_leftovers(folder, path.name)
    return path


def check_folder(path: str | Path) -> Path:
    """Refuse an output folder that cannot be made or written, before any work is done for it.

    Raises:
        So3kError: a file has this path or that of a parent folder, or the parent folder is read-only.
    """
    path = Path(path)
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir():
        raise So3kError(f"{existing} is a file, a folder is needed: choose another name")
    if not os.access(existing, os.W_OK):
        raise So3kError(
            f"the folder {existing} cannot be written: choose another one or change its permissions"
        )
    return path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`; it replaces `path` on success and is removed on failure.

    Temporary files that killed processes left for the same path are removed first.

    Raises:
        So3kError: the operating system refuses the write (full disk, missing permissions).
    """
    path = Path(path)
    remove_leftovers(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise So3kError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path, name: str | None = None) -> None:
    """Remove temporary files of `atomic` whose process no longer runs on this machine.

    Args:
        folder: their folder; it need not exist.
        name: of the file that they should have become; None for any.
    """
    target = r".+" if name is None else re.escape(name)
    pattern = re.compile(rf"\.{target}\.{re.escape(_host())}\.(\d+)\.part.*")
    try:
        found = [(entry, pattern.fullmatch(entry)) for entry in os.listdir(folder)]
    except OSError:
        return
    for entry, match in found:
        if match and not _runs(int(match.group(1))):
            Path(folder, entry).unlink(missing_ok=True)


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep other processes from a folder while this one writes to it.

    The operating system locks the file `.lock`, and releases the lock at the end of the process.

    Raises:
        So3kError: another process has locked the folder.
    """
    path = Path(folder, ".lock")
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read(200).strip() or "another process"
            file.close()
            raise So3kError(
                f"{folder} is in use by {owner}: wait until it ends, stop it, or name another folder"
            ) from None
        except OSError:  # a file system without locks: the folder is used without a lock
            break
        # the previous owner of the lock may have removed the file, so that this lock protects nothing
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            break
        file.close()
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _host() -> str:
    """The name of this machine, usable in a file name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "localhost"


def _runs(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
