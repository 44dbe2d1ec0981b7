"""A server as a process of its own, for a check: `python -m callwright.serve.check.launch stock|callwright ARGUMENTS`.

It loads the fast BLAS before MLX, as every command here does, and ends with the process that started it, however that
ends. `stock` is then `mlx_lm.server`, with nothing changed in it; `callwright` is `callwright serve`.
"""

import argparse
import sys

from callwright.commands import serve
from callwright.runtime import processes
from callwright.runtime.errors import CallwrightError


def main() -> int:
    """Start the server that the first argument names, with the others as its own."""
    processes.follow_parent()
    kind, *arguments = sys.argv[1:]
    if kind == "callwright":
        parser = argparse.ArgumentParser()
        serve.configure(parser)
        parser.set_defaults(usage_error=parser.error)
        try:
            return serve.run(parser.parse_args(arguments))
        except CallwrightError as error:
            print(error, file=sys.stderr)
            return 1
    from callwright.runtime import device, logs

    logs.setup()
    device.configure()
    import mlx_lm.server

    sys.argv = ["mlx_lm.server", *arguments]
    mlx_lm.server.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
