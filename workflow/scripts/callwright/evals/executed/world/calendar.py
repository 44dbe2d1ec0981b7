"""The calendar: events with guests, and the free time between them."""

from callwright.evals.executed.world.basics import (
    Function,
    State,
    ToolError,
    as_date,
    as_time,
    clock,
    find,
    key,
    lookup,
    minutes_of,
    named,
)

HOUR = 60  # how long an event takes
OPENS, CLOSES = "09:00", "18:00"


def event(title: str, date: str, time: str | None = None, guests: tuple[str, ...] = ()) -> State:
    """An event as the state holds it."""
    return {"title": title, "date": date, "time": time, "guests": list(guests)}


START = {
    "events": [
        event("standup", "2026-03-03", "09:30", ("Ben", "Carla")),
        event("swimming", "2026-03-04", "18:00"),
        event("quarterly planning", "2026-03-05", "14:00", ("Priya",)),
        event("weekly sync", "2026-03-06", "10:00"),
        event("lunch with Anna", "2026-03-07", "12:30", ("Anna",)),
    ]
}


def create_event(state: State, /, title: str, date: str, time: str | None = None) -> str:
    """Add an event."""
    made = event(named(title, "event"), as_date(date), None if time is None else as_time(time))
    state["events"].append(made)
    return f"{made['title']} is on the calendar for {made['date']}" + (f" at {made['time']}" if time else "")


def cancel_event(state: State, /, title: str) -> str:
    """Remove the event of this title."""
    chosen = _one(state, title)
    state["events"].remove(chosen)
    return f"{chosen['title']} on {chosen['date']} is canceled"


def find_free_slot(state: State, /, date: str, minutes: int) -> State:
    """The first free time of so many minutes on a day, within working hours."""
    day = as_date(date)
    if minutes <= 0:
        raise ToolError(f"a slot cannot have {minutes} minutes")
    taken = sorted(minutes_of(e["time"]) for e in state["events"] if e["date"] == day and e["time"])
    begin = minutes_of(OPENS)
    for start in taken:
        if start - begin >= minutes:
            break
        begin = max(begin, start + HOUR)
    if begin + minutes > minutes_of(CLOSES):
        return {"date": day, "minutes": minutes, "from": None, "to": None}
    return {"date": day, "minutes": minutes, "from": clock(begin), "to": clock(begin + minutes)}


def invite_guests(state: State, /, event: str, guests: list[str]) -> str:
    """Add people to the guests of an event."""
    chosen = _one(state, event)
    for guest in guests:
        if lookup(chosen["guests"], guest) is None:
            chosen["guests"].append(named(guest, "guest"))
    return f"guests of {chosen['title']}: {', '.join(chosen['guests'])}"


def _one(state: State, title: str) -> State:
    """The only event of a title."""
    find((e["title"] for e in state["events"]), title, "event")
    found = [e for e in state["events"] if key(e["title"]) == key(title)]
    if len(found) > 1:
        raise ToolError(f"there are {len(found)} events called {title!r}")
    return found[0]


def _there(state: State, title: str) -> None:
    if lookup((e["title"] for e in state["events"]), title) is None:
        state["events"].append(event(title, "2026-03-11", "11:00"))


FUNCTIONS = {
    "create_event": Function(create_event),
    "cancel_event": Function(cancel_event, arrange=_there),
    "find_free_slot": Function(find_free_slot, reads=True),
    "invite_guests": Function(invite_guests, arrange=lambda state, event, guests: _there(state, event)),
}
