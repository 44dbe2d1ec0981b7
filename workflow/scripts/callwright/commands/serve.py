"""Serve a model to OpenAI clients: chat completions with tool calls that are never malformed or unknown.

MODEL is a model folder, as `results/<run>/package/model` or a base model with --adapter. Requests with tools are
answered under a grammar of these tools; `tool_choice`, `parallel_tool_calls`, streaming, `stop` and `seed` work as
OpenAI's API describes them. Each call carries `confidence`, from 0 to 1: how sure the model is
that something should be called. Where the model's folder holds `decision.json`, it calls from a fitted confidence on
(with `tool_choice` "auto"). A call that the limit of tokens cuts is reported: finish_reason "length", a sentence in
`message.refusal`, and the model's text in the choice's `error`. A request that names no `temperature` gets the
likeliest answer (0, where OpenAI's default is 1): that is what was evaluated.

With --playground the address itself shows a page on which requests are answered side by side by the model and its base,
calls are tried, and wrong answers corrected; corrections are training examples of the next run.

An API key is read from the environment variable CALLWRIGHT_API_KEY or from --api-key-file.
"""

import argparse
import contextlib

EXAMPLES = """examples:
  callwright serve results/default/package/model
  callwright serve results/models/smollm2-135m-instruct/mlx --adapter results/default/adapter --port 8081
  callwright serve results/models/smollm2-135m-instruct/mlx --adapter results/default/adapter --playground
  curl http://127.0.0.1:8080/v1/models
  python -c "from openai import OpenAI; print(OpenAI(base_url='http://127.0.0.1:8080/v1', api_key='-').models.list())"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from callwright.chat.call_format import OURS
    from callwright.serve.limits import Limits

    usual = Limits()
    parser.add_argument("model", metavar="MODEL", help="the model's folder")
    parser.add_argument("--adapter", metavar="DIR", help="LoRA weights to put on it")
    parser.add_argument("--name", help="the model's name for clients (default: after its folder)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="answer to this name, too, as that of a proxy or a container; any number of times, * for any name",
    )  # fmt: skip
    parser.add_argument("--api-key-file", metavar="FILE", help="file with the key that clients must send")
    parser.add_argument(
        "--no-grammar", action="store_true", help="leave answers unconstrained; wrong calls are left out"
    )
    parser.add_argument(
        "--format", choices=list(OURS), default="hermes",
        help="how the model was trained to write calls (`data.format`); hermes: in its own form where it has one",
    )  # fmt: skip
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="where a request has none (0)")
    parser.add_argument(
        "--grounding", choices=["ask", "flag", "off"],
        help="calls with values that nobody said: ask for them instead, flag them, or let them pass (default: ask "
        "where the model's run was measured so, condition tuned_served; else off)",
    )  # fmt: skip
    parser.add_argument(
        "--no-tool-encoder", action="store_true",
        help="let the model alone name the tools and decide to call, where its run has a tool encoder join in "
        "(evaluation.tool_encoder)",
    )  # fmt: skip
    playground = parser.add_argument_group("playground")
    playground.add_argument("--playground", action="store_true", help="a page at / to try and to correct the model")
    playground.add_argument(
        "--base", metavar="DIR", help="model to show beside it; `none` (default: the one before training)"
    )
    playground.add_argument(
        "--tools", metavar="FILE", action="append", default=[],
        help="its tools: a toolset, Python functions (which can be called then), JSON, OpenAPI; several",
    )  # fmt: skip
    playground.add_argument(
        "--run",
        metavar="DIR",
        dest="run_folder",
        help="the model's run, results/<run> (default: found from its folder)",
    )
    playground.add_argument("--corrections", metavar="FILE", help="where corrections are kept (default: as the run's "
                            "configuration says, or corrections.jsonl)")  # fmt: skip
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-tokens", type=_count, default=usual.max_tokens, metavar="N",
        help="of an answer whose request sets no limit (default: %(default)s)",
    )  # fmt: skip
    limits.add_argument(
        "--max-running", type=_count, default=usual.running, metavar="N",
        help="answers generated at once (default: %(default)s)",
    )  # fmt: skip
    limits.add_argument(
        "--max-waiting", type=int, default=usual.waiting, metavar="N",
        help="requests beside these; more are refused with 429 (default: %(default)s)",
    )  # fmt: skip
    limits.add_argument(
        "--keep-prompts", type=_megabytes, default=usual.kept_bytes, metavar="MB",
        help="of memory for recent prompts: a request that begins like one (the same tools) pays for the rest alone "
        f"(default: {usual.kept_bytes >> 20})",
    )  # fmt: skip
    limits.add_argument(
        "--max-tools", type=_count, default=usual.tools, metavar="N", help="in one request (default: %(default)s)"
    )
    limits.add_argument(
        "--max-body",
        type=_count,
        default=usual.body_bytes,
        metavar="BYTES",
        help="of one request (default: %(default)s)",
    )
    limits.add_argument(
        "--body-timeout", type=float, default=usual.body_seconds, metavar="SECONDS",
        help="in which a request must arrive (default: %(default)g)",
    )  # fmt: skip
    limits.add_argument(
        "--grace", type=_count, default=10, metavar="SECONDS",
        help="left to open requests at SIGINT or SIGTERM (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", choices=["auto", "gpu", "cpu"], default="auto", help="where to compute")
    parser.add_argument("--cpu-threads", type=int, default=0, metavar="N", help="0: all cores")


def run(options: argparse.Namespace) -> int:
    """Load, serve, end."""
    from callwright.runtime import device, logs

    if not 0 <= options.temperature <= 2:
        options.usage_error(f"--temperature {options.temperature}: expected a number from 0 to 2")
    if not options.playground and (options.tools or options.run_folder or options.base or options.corrections):
        options.usage_error("--tools, --run, --base and --corrections are the playground's: add --playground")
    logs.setup()
    device.configure(options.cpu_threads, options.device)
    from callwright.commands import playground
    from callwright.serve import server
    from callwright.serve.app import Service
    from callwright.serve.limits import Limits
    from callwright.serve.model import open_served

    limits = Limits(
        body_bytes=options.max_body,
        body_seconds=options.body_timeout,
        tools=options.max_tools,
        running=options.max_running,
        waiting=max(options.max_waiting, 0),
        max_tokens=options.max_tokens,
        kept_bytes=options.keep_prompts,
    )
    key = server.read_key(options.api_key_file)
    with server.listen(options.host, options.port) as listening:  # before the model: a taken port is known at once
        server.warn_if_open(options.host, key)
        grammar = not options.no_grammar
        model = open_served(
            options.model,
            options.adapter,
            options.name,
            grammar,
            options.temperature,
            options.grounding,
            options.format,
            not options.no_tool_encoder,
        )
        service = Service(model, limits, key, server.is_loopback(options.host), options.allow_host)
        with contextlib.ExitStack() as stack:
            if options.playground:
                playground.attach(service, options, stack)
            server.serve(service, limits, listening, options.grace)
    return 0


def _count(text: str) -> int:
    """A whole number from 1 on."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text}")
    return value


def _megabytes(text: str) -> int:
    """Bytes; 0 keeps nothing."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, found {text}")
    return value << 20
