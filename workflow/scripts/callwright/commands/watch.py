"""Watch a run: what is under way, how long it still takes, and the training curve, redrawn in the terminal.

RUN is the run's folder, results/<run>. It may not have begun (the command waits), may be finished or interrupted
(it says so). Nothing of the run is touched, so any number of terminals can watch. It ends when the run is finished,
and with Ctrl-C.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

from callwright.runtime.errors import CallwrightError

EXAMPLES = """examples:
  callwright watch results/default
  callwright watch results/default --every 10
  callwright watch results/default --once | tee frame.txt
"""
# Cursor to the top left; after each line, erase what was there; after the last, erase what is below.
CLEAR, HOME, END_OF_LINE, BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("folder", metavar="RUN", nargs="?", default="results/default", help="default: results/default")
    parser.add_argument("--every", type=seconds, default=2.0, metavar="S", help="seconds between frames (default 2)")
    parser.add_argument("--once", action="store_true", help="print one frame and end")


def seconds(text: str) -> float:
    """A time of at least a tenth of a second."""
    value = float(text)
    if not 0.1 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time of at least 0.1 s")
    return value


def run(options: argparse.Namespace) -> int:
    """Draw frame after frame; returns 0 when the run is finished, on Ctrl-C, and after one frame with --once."""
    from callwright.report import live

    folder = Path(options.folder)
    if folder.exists() and not folder.is_dir():
        raise CallwrightError(f"{folder} is a file: expected the folder of a run, as in results/default")
    redraw = sys.stdout.isatty() and not options.once
    if redraw:
        print(CLEAR, end="")
    try:
        while True:
            size = shutil.get_terminal_size()
            view = live.look(folder)
            text = live.frame(view, size.columns, size.lines, time.strftime("%H:%M:%S"))
            print(HOME + text.replace("\n", END_OF_LINE + "\n") + END_OF_LINE + BELOW if redraw else text, flush=True)
            if options.once or view.status == live.FINISHED:
                return 0
            time.sleep(options.every)
    except KeyboardInterrupt:
        return 0
    finally:
        if redraw:
            print()  # what the shell writes next begins on a line of its own
