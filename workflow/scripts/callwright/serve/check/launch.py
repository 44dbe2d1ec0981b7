"""A server as a process of its own, for a check: `python -m callwright.serve.check.launch stock|callwright ARGUMENTS`.

It loads the fast BLAS before MLX, as every command here does, and ends with the process that started it, however that
ends. `stock` is then `mlx_lm.server`, with nothing changed in it; `callwright` is `callwright serve`.
"""

import runpy
import sys

from callwright.runtime import device, logs, processes

PROGRAMS = {"stock": ["mlx_lm.server"], "callwright": ["callwright.cli", "serve"]}


def main() -> None:
    """Run the program that the first argument names as `python -m` would, with the other arguments as its own."""
    processes.follow_parent()
    kind, *arguments = sys.argv[1:]
    if kind == "stock":
        logs.setup()
        device.configure()
    module, *before = PROGRAMS[kind]
    sys.argv = [module, *before, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
