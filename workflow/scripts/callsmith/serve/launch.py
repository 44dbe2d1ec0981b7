"""A server as a process of its own, for a check: `python -m callsmith.serve.launch stock|callsmith ARGUMENTS`.

It loads the fast BLAS before MLX, as every command here does, and ends with the process that started it, however that
ends. `stock` is then `mlx_lm.server`, with nothing changed in it; `callsmith` is `callsmith serve`.
"""

import sys

from callsmith.runtime import processes


def main() -> int:
    """Start the server that the first argument names, with the others as its own."""
    processes.follow_parent()
    kind, *arguments = sys.argv[1:]
    if kind == "callsmith":
        from callsmith import cli

        return cli.main(["serve", *arguments])
    from callsmith.runtime import device, logs

    logs.setup()
    device.configure()
    import mlx_lm.server

    sys.argv = ["mlx_lm.server", *arguments]
    mlx_lm.server.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
