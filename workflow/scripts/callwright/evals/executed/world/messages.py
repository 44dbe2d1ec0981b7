"""Contacts, text messages, calls and emails."""

import re

from callwright.evals.executed.world.basics import Function, State, ToolError, find, key, lookup, named, plain

# What people wrote; each contact that a task reads from has these.
WRITTEN = (
    "are you home?", "I found the book", "see you at six", "the bus is late", "call me back", "happy birthday!",
    "did you get my letter?", "we moved the picnic", "thanks for the cake",
)  # fmt: skip

START = {
    "contacts": ["Anna", "Ben", "Carla", "Priya", "Tom"],
    "inbox": [
        {"contact": "Anna", "text": "shall we have lunch on Saturday?"},
        {"contact": "Ben", "text": "the slides are ready"},
    ],
    "sent": [],
    "calls": [],
    "emails": [],
}


def send_message(state: State, /, contact: str, text: str) -> str:
    """Send a text message."""
    name = find(state["contacts"], contact, "contact")
    state["sent"].append({"contact": name, "text": named(text, "message")})
    return f"sent to {name}"


def call_contact(state: State, /, contact: str, video: bool = False) -> str:
    """Call somebody."""
    name = find(state["contacts"], contact, "contact")
    state["calls"].append({"contact": name, "video": video})
    return f"{'video ' if video else ''}calling {name}"


def send_email(state: State, /, to: str, subject: str) -> str:
    """Send an email."""
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", plain(to)):
        raise ToolError(f"{to!r} is no email address")
    state["emails"].append({"to": plain(to), "subject": named(subject, "subject")})
    return f"the email is on its way to {plain(to)}"


def read_messages(state: State, /, contact: str, count: int | None = None) -> State:
    """The last messages of a contact, all of them without a count."""
    name = find(state["contacts"], contact, "contact")
    found = [message["text"] for message in state["inbox"] if key(message["contact"]) == key(name)]
    if count is not None and count < 1:
        raise ToolError(f"{count} messages cannot be read")
    return {"from": name, "messages": found[-count:] if count else found}


def known(state: State, contact: str) -> str:
    """A contact that a task names is among the contacts."""
    found = lookup(state["contacts"], contact)
    if found is None:
        state["contacts"].append(contact)
    return found or contact


def _wrote(state: State, /, contact: str, count: int | None = None) -> None:
    name = known(state, contact)
    state["inbox"] += [{"contact": name, "text": f"{text} ({name})"} for text in WRITTEN]


FUNCTIONS = {
    "send_message": Function(send_message, arrange=lambda state, /, contact, text: known(state, contact)),
    "call_contact": Function(call_contact, arrange=lambda state, /, contact, video=False: known(state, contact)),
    "send_email": Function(send_email),
    "read_messages": Function(read_messages, reads=True, arrange=_wrote),
}
