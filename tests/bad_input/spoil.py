"""How good files are spoilt, and what is in a folder."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file with its bytes and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def edit(name: str, old: str, new: str) -> None:
    """Spoil a text file."""
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new, 1))


def truncate(name: str, part: float = 0.5) -> None:
    """Cut a file short."""
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[: int(part * len(data))])
