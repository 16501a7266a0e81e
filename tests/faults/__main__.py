"""python -m tests.faults --minutes 60 --seed 1: a campaign of damaged files; exit code 1 where something was found.

Numbers begin at seed x 10^9. Findings are kept in --keep, as KIND-NUMBER-NAME. --number N repeats one.
"""

import argparse
import contextlib
import itertools
import sys
import time
from pathlib import Path

from . import campaign, seeds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=seeds.KINDS, default=seeds.KINDS)
    parser.add_argument("--number", type=int, help="this one alone")
    parser.add_argument("--keep", type=Path, default=Path("findings"))
    options = parser.parse_args()
    began, tally = time.monotonic(), campaign.Tally()
    numbers = iter([options.number]) if options.number is not None else itertools.count(options.seed * 10**9)
    with contextlib.suppress(KeyboardInterrupt):
        campaign.run(options.kinds, numbers, tally, ends=began + 60 * options.minutes)
    print(f"{tally}\n{sum(tally.outcomes.values())} files in {time.monotonic() - began:.0f} s, seed {options.seed}")
    for finding in tally.findings:
        options.keep.mkdir(parents=True, exist_ok=True)
        (options.keep / f"{finding.kind}-{finding.number}").write_bytes(finding.content)
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
