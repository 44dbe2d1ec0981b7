"""What a server takes on: sizes, counts and times; a request beyond them gets an error of its own."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The server's limits.

    body_bytes    of a request
    body_seconds  that a client may take to send it
    tools         in one request
    running       answers that are generated at once, in one batch
    waiting       requests beside these; one more is refused (status 429)
    max_tokens    of an answer whose request names no limit
    connections   open at once
    kept_bytes    of keys and values of recent prompts: a request that begins like one pays for the rest alone
    """

    body_bytes: int = 1 << 20
    body_seconds: float = 30.0
    tools: int = 128
    running: int = 16
    waiting: int = 64
    max_tokens: int = 512
    connections: int = 512
    kept_bytes: int = 512 << 20
