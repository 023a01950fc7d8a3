"""How much memory there is to take."""

import os
import shutil
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
SHARED = Path("/dev/shm")


def available_memory(shared: bool) -> int:
    """Bytes that can be taken without pushing others out, in a container by its limit; `shared` by several processes.

    Where the system does not say (macOS), all that the machine has.
    """
    found = [*_machine(), *_container()]
    if shared and SHARED.is_dir():
        found.append(shutil.disk_usage(SHARED).free)
    return min(found) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _machine() -> list[int]:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return []
    return [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]


def _container() -> list[int]:
    """What a limit of control groups (version 2) leaves; cached files give way."""
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    return [] if limit == "max" else [int(limit) - int(used) + int(statistics.get("inactive_file", 0))]
