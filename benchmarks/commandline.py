"""What the benchmarks' command lines have in common."""

from __future__ import annotations

import argparse
from collections.abc import Collection


def parser(module: str, description: str, names: Collection[str] = ()) -> argparse.ArgumentParser:
    """A parser of ``python -m benchmarks.MODULE [NAME ...] [--threads 2]``.

    Args:
        module: the module's name.
        description: what it measures.
        names: the workloads that it may be asked for; with none, it takes no names.
    """
    made = argparse.ArgumentParser(f"python -m benchmarks.{module}", description=description)

    def known(name: str) -> str:
        if name not in names:
            raise argparse.ArgumentTypeError(f"unknown workload {name}; there are {', '.join(names)}")
        return name

    if names:
        told = f"workloads, of {', '.join(names)}; all by default"
        made.add_argument("names", nargs="*", metavar="NAME", type=known, help=told)
    made.add_argument("--threads", type=int, default=2, help="threads and cores of each process (default 2)")
    return made
