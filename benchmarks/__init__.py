"""Figures of the daemon, each measured from outside beside a floor of the same run.

`python -m benchmarks` measures all, `python -m benchmarks recovery` one. A figure is a file in
`figures/`; what it compares with are the scripts in `bare/`. How each is measured, and what that
cannot tell, stands in docs/explanation/benchmarks.md.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The servers and the proxy are those of the tests.
sys.path.insert(0, str(ROOT / "tests"))
