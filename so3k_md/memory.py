"""Determines how much memory a process can still use."""

import os
import resource
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> float:
    """Bytes that can still be used, by limits of machine, container and `ulimit -v`; inf if unknown."""
    return min(_of_machine(), _of_container(), _of_process())


def describe_bytes(count: float) -> str:
    """A size in GB or MB for messages."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _of_machine() -> float:
    if MEMINFO.exists():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return float("inf")


def _of_container() -> float:
    """The limit of a control group (version 2) minus its use."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        cached = [
            line for line in (CGROUP / "memory.stat").read_text().splitlines() if line.startswith("file ")
        ]
    except OSError:
        return float("inf")
    free = sum(int(line.split()[1]) for line in cached)  # cached pages of files can be freed
    return float("inf") if limit == "max" else float(max(0, int(limit) - used + free))


def _of_process() -> float:
    """The limit on the address space minus its use."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    statm = Path("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not statm.exists():
        return float("inf")
    return max(0.0, limit - float(int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")))
