"""What every rule's script does around its one library call: logs, device, errors, time."""

import logging
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

from callwright.runtime import logs
from callwright.runtime.errors import FULL_DISK, CallwrightError

log = logging.getLogger(__name__)


def run(snakemake: Any, main: Callable[[Any], None], device: bool = False) -> None:
    """Run `main(snakemake)` for a Snakemake script.

    Log records go to the rule's log file and to the console. With `device`, the BLAS and
    MLX's device are set up first (config keys `device.*`), so `main` imports MLX inside.
    A CallwrightError or a full disk becomes one line and exit status 1; any other error keeps its traceback.
    """
    logs.setup(snakemake.log[0] if snakemake.log else None)
    start = time.monotonic()
    try:
        log.info("%s, Python %s, %s", snakemake.rule, platform.python_version(), platform.platform())
        if device:
            from callwright.runtime import device as devices

            devices.configure(**snakemake.config.get("device", {}))
        main(snakemake)
        log.info("%s done in %s", snakemake.rule, logs.duration(time.monotonic() - start))
    except CallwrightError as error:
        log.error("%s", error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL_DISK:
            log.exception("%s failed", snakemake.rule)
        else:
            log.error("no space left on the disk (%s): free some and run again", error.filename or "results/")
        sys.exit(1)
    except Exception:
        log.exception("%s failed", snakemake.rule)
        sys.exit(1)
