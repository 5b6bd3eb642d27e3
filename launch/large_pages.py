"""Has the memory of a program that computes on a CPU put there in large pages.

A step gets the memory of its arrays from Linux and gives it back, each time anew. In
pages of 4 kB a small train step touches 89,000, and a fifth of its time is Linux's; in
pages of 2 MB it takes 0.85 of the time (docs/benchmarks.md). glibc asks for them where
it was told to before the program began, so the program begins once more, as the same
process. `GLIBC_TUNABLES=` in the environment leaves all as it is.
"""

import os
import sys
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
LARGE_PAGES = "glibc.malloc.hugetlb=1"
# "madvise": Linux gives large pages to who asks. With "always" nobody needs to ask.
PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Of NVIDIA, AMD and Google: with one of them the arrays are not in this memory.
ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel*", "vfio/[0-9]*")


def use_large_pages() -> None:
    """Does not return where the program begins again: before JAX and before any work.

    After the command line was read, so that help and mistakes are said at once.
    """
    if VARIABLE in os.environ or not sys.executable:
        return
    if _on_a_cpu() and _for_the_asking():
        os.environ[VARIABLE] = LARGE_PAGES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _on_a_cpu() -> bool:
    """Whether JAX will compute there: as it was told to, else by what there is."""
    told = os.environ.get("JAX_PLATFORMS")
    if told:
        return told == "cpu"
    return not any(any(Path("/dev").glob(each)) for each in ACCELERATORS)


def _for_the_asking() -> bool:
    """Whether this is Linux with a glibc that asks, 2.35 or later, and it may."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        major, minor = version.split(".")[:2]
        new_enough = name == "glibc" and (int(major), int(minor)) >= (2, 35)
        return new_enough and "[madvise]" in PAGES.read_text(encoding="utf-8")
    except (AttributeError, OSError, ValueError):
        return False  # no confstr, no such name, no such file: another system
