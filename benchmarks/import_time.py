"""What `import fnflare` costs above `import numpy`, and what it pulls in.

``python -m benchmarks.import_time [--runs 15]``: medians over fresh processes, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

LIMIT_SECONDS = 0.15

# Both modules are timed inside the process, so that the interpreter's own start does not count.
PROGRAM = """
import json, sys, time
start = time.perf_counter()
import numpy
between = time.perf_counter()
import numpy.random  # NumPy's own, which brings modules of Cython's: counted in the time, not as another package
before = set(sys.modules)
import fnflare
end = time.perf_counter()
new = {name.partition(".")[0] for name in set(sys.modules) - before} - {"fnflare", "numpy"}
print(json.dumps([between - start, end - between, sorted(new)]))
"""


def main() -> int:
    """Measure; 1 if the import is slower than the project allows itself, else 0."""
    parser = argparse.ArgumentParser("python -m benchmarks.import_time", description="what the import costs")
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    numpy, own, modules = [], [], []
    for _ in range(runs):
        out = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, check=True).stdout
        seconds_numpy, seconds_own, modules = json.loads(out)
        numpy.append(seconds_numpy)
        own.append(seconds_own)
    above = statistics.median(own)
    foreign = [name for name in modules if name not in sys.stdlib_module_names]
    held = above <= LIMIT_SECONDS and not foreign
    print(f"import numpy    {statistics.median(numpy) * 1e3:6.1f} ms")
    verdict = f"at most {LIMIT_SECONDS * 1e3:.0f}: {'held' if held else 'MISSED'}"
    print(f"import fnflare  {above * 1e3:6.1f} ms more ({verdict})")
    print(f"of the standard library it adds: {', '.join(m for m in modules if m not in foreign) or 'nothing'}")
    print(f"of other packages it adds: {', '.join(foreign) or 'nothing'}")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
