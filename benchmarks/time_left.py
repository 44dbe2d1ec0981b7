"""How far off was the time left that progress lines told? From the logs of finished generations, trainings and others.

    python benchmarks/time_left.py results/default/evaluation/*/*/generate.log

For each job that came to its end: its whole time, how far off the first line after a tenth of it was, as a share of the
whole (+: it took less than was told), and the farthest of all lines from then on. The goal is 30 %.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

DURATION = r"(?:(\d+) min )?([\d.]+) s"
CLOCK = r"(\d\d):(\d\d):(\d\d) I (.+?): "
TOLD = re.compile(rf"{CLOCK}\d+ of \d+ \S+, \S+/s, {DURATION} left")
ENDED = re.compile(rf"{CLOCK}\d+ \S+ in {DURATION}$")


def found(lines: Iterable[str]) -> Iterator[tuple[str, float, list[float]]]:
    """(what, its seconds, the errors from a tenth of them on as shares of them) of each job that ended."""
    told = defaultdict(list)
    for line in lines:
        if match := TOLD.match(line) or ENDED.match(line.rstrip()):
            hours, minutes, seconds, what, *duration = match.groups(default="0")
            clock = 3600 * int(hours) + 60 * int(minutes) + int(seconds)
            told[what].append((clock, 60 * int(duration[0]) + float(duration[1])))
            if match.re is ENDED:
                end, total = told[what][-1]
                passed = [(total - (end - at) % 86400, left) for at, left in told.pop(what)[:-1]]
                yield what, total, [(at + left) / total - 1 for at, left in passed if at >= 0.1 * total]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        for what, total, errors in found(Path(path).read_text(encoding="utf-8").splitlines()):
            if errors:
                print(f"{what}: {total:.0f} s, {errors[0]:+.0%} after a tenth, {max(errors, key=abs):+.0%} at most")
