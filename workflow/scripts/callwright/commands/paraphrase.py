"""Better words for a toolset: a language model behind any OpenAI-compatible server, or your logs, propose phrasings.

For each tool the server is asked for phrasings with slots, for requests that lack a value, and for near misses that the
tool cannot do. What fits is written to a YAML file for you to read and thin out; everything else is counted with its
reason. --accept puts the reviewed file into the toolset. Answers are kept beside the file: a run that was interrupted
goes on, and nothing is asked twice. Only the tools' descriptions are sent, with --examples some phrasings too.

The server's key is read from OPENAI_API_KEY; local servers need none.
"""

import argparse
from pathlib import Path
from typing import Any

from callwright.commands import shared
from callwright.runtime.errors import CallwrightError

EXAMPLES = """examples:
  callwright paraphrase office.yaml --url http://127.0.0.1:8080/v1
  callwright paraphrase office.yaml --url http://127.0.0.1:11434/v1 --model qwen2.5:7b --count 12 --examples
  callwright paraphrase office.yaml --logs conversations.jsonl
  callwright paraphrase office.yaml --accept office-proposals.yaml
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("toolset", metavar="TOOLSET", help="the toolset")
    parser.add_argument("--url", help="the server's address, as in http://127.0.0.1:8080/v1")
    parser.add_argument("--model", metavar="NAME", help="the model's name there (default: its first)")
    parser.add_argument("--logs", metavar="FILE", action="append", default=[], help="conversations; several allowed")
    parser.add_argument("--out", metavar="FILE", help="the proposals (default: TOOLSET-proposals.yaml)")
    parser.add_argument("--accept", metavar="FILE", help="put these proposals into the toolset, and end")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="asked for each tool and kind (default 10)")
    parser.add_argument("--examples", action="store_true", help="show the server three phrasings of each tool")
    parser.add_argument(
        "--temperature", type=float, default=0.8, metavar="T", help="of the server's answers (default 0.8)"
    )
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="of one answer (default 300)")


def run(options: argparse.Namespace) -> int:
    """Ask, check, write; or accept."""
    from callwright.data.toolset import paraphrase
    from callwright.data.toolset.toolset import load_toolset
    from callwright.runtime.files import atomic_write

    shared.quiet_logs()
    (path,) = shared.existing([options.toolset])
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise CallwrightError(f"{path} is no toolset (YAML): `callwright new {path}` writes one for your tools")
    if options.accept:
        counts = paraphrase.accept(path, shared.existing([options.accept])[0])
        print(f"{path}: added {', '.join(f'{count} {kind}' for kind, count in counts.items()) or 'nothing'}")
        return 0
    if not options.url and not options.logs:
        options.usage_error("name a server with --url, or conversations with --logs")
    out = Path(options.out) if options.out else path.with_name(f"{path.stem}-proposals.yaml")
    found = paraphrase.Filter(load_toolset(path))
    for log in shared.existing(options.logs):
        paraphrase.from_logs(found, conversations(log))
    if options.url:
        ask_server(options, found, paraphrase.Cache(out.with_suffix(".cache.jsonl")))
    with atomic_write(out) as stream:
        stream.write(paraphrase.review_text(found.proposals, str(path)).encode())
    for kind in paraphrase.KINDS:
        left_out = found.proposals.rejected[kind]
        why = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common())
        print(f"{kind}: {found.proposals.count(kind)} of {found.proposals.count(kind) + left_out.total()} kept"
              + (f" (left out: {why})" if why else ""))  # fmt: skip
    print(f"{out}: read it, remove what nobody would say, then: callwright paraphrase {path} --accept {out}")
    return 0


def ask_server(options: argparse.Namespace, found: Any, cache: Any) -> None:
    """All tools and kinds, one after the other."""
    from callwright.data.toolset import paraphrase
    from callwright.runtime.chat_server import ChatServer

    server = ChatServer(options.url, options.timeout, kept="; what was answered is kept: run it again to go on")
    model = options.model or server.first_model()

    def ask(text: str) -> str:
        answer = server.complete(
            model,
            messages=[{"role": "user", "content": text}],
            temperature=options.temperature,
            max_tokens=60 * options.count,
        )
        return answer.choices[0].message.content or ""

    for tool in found.toolset.tools:
        for kind in paraphrase.KINDS:
            if kind == "missing" and not tool.required:
                continue
            text = paraphrase.prompt(tool, kind, options.count, 3 if options.examples else 0)
            said, new = cache.answer(model, text, ask)
            lines = list(paraphrase.lines_of(said))
            kept = sum(found.take(tool, kind, line) is None for line in lines)
            shared.note(f"{tool.name} {kind}: {kept} of {len(lines)} lines kept" + ("" if new else " (asked before)"))


def conversations(path: Path) -> list[Any]:
    """The usable records of a file of conversations; raises CallwrightError where there are none."""
    from callwright.data.records import RecordError
    from callwright.data.sources import read_records

    found = [record for _, record in read_records(path)]
    good = [record for record in found if not isinstance(record, RecordError)]
    if not found:
        raise CallwrightError(f"{path} holds no records")
    if not good:
        raise CallwrightError(
            f"{path}: none of its {len(found)} records can be read as an example: {found[0].reason} ({found[0].rule})"
        )
    if len(good) < len(found):
        shared.note(f"{path}: {len(found) - len(good)} of {len(found)} records cannot be read as examples")
    return good
