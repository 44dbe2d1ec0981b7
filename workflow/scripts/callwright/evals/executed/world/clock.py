"""Timers, alarms, reminders, and the time in other cities."""

from callwright.evals.executed.world.basics import (
    NOW,
    TODAY,
    Function,
    State,
    ToolError,
    as_date,
    as_time,
    clock,
    find,
    key,
    minutes_of,
    named,
    plain,
)

# Hours from UTC in winter; the world has no summer time.
OFFSETS = {
    -8: "Vancouver, Seattle, Portland, San Francisco, Los Angeles",
    -7: "Denver",
    -6: "Chicago, Austin, Mexico City",
    -5: "Toronto, Montreal, Boston, New York, Miami, Atlanta, Bogota, Lima, Quito",
    -3: "Santiago, Buenos Aires, São Paulo",
    0: "London, Lisbon, Dublin, Porto, Accra",
    1: "Paris, Berlin, Madrid, Rome, Vienna, Prague, Warsaw, Budapest, Oslo, Stockholm, Copenhagen, Amsterdam, "
    "Brussels, Zurich, Geneva, Milan, Naples, Barcelona, Seville, Hamburg, Munich, Cologne, Krakow, Lagos",
    2: "Athens, Helsinki, Riga, Tallinn, Vilnius, Cairo, Cape Town",
    3: "Istanbul, Nairobi",
    4: "Dubai",
    5.5: "Mumbai, Delhi",
    7: "Bangkok, Jakarta, Hanoi",
    8: "Singapore, Manila, Beijing, Shanghai",
    9: "Seoul, Tokyo, Osaka, Kyoto",
    11: "Sydney, Melbourne",
    13: "Auckland",
}
CITIES = {city: hours for hours, cities in OFFSETS.items() for city in cities.split(", ")}

START = {
    "timers": [],
    "alarms": [{"time": "06:45", "day": "2026-03-09"}],
    "reminders": [{"task": "call the dentist", "time": "15:00"}],
}


def set_timer(state: State, /, minutes: int, label: str | None = None) -> str:
    """Start a timer."""
    if minutes <= 0:
        raise ToolError(f"a timer cannot have {minutes} minutes")
    state["timers"].append({"minutes": minutes, "label": None if label is None else plain(label)})
    return f"a timer of {minutes} minutes is running"


def set_alarm(state: State, /, time: str, day: str | None = None) -> str:
    """Set an alarm; without a day it rings the next time that the clock shows this."""
    time = as_time(time)
    if day is None:
        day = "today" if minutes_of(time) > minutes_of(NOW) else "tomorrow"
    when = "every day" if key(day) in ("every day", "daily") else as_date(day)
    if when == TODAY.isoformat() and minutes_of(time) <= minutes_of(NOW):
        raise ToolError(f"it is past {time} today")
    state["alarms"].append({"time": time, "day": when})
    return f"an alarm is set for {time}, {when}"


def add_reminder(state: State, /, task: str, time: str) -> str:
    """Add a reminder."""
    state["reminders"].append({"task": named(task, "reminder"), "time": as_time(time)})
    return f"reminder at {as_time(time)}: {plain(task)}"


def convert_time(state: State, /, time: str, from_city: str, to_city: str) -> State:
    """What the clocks of one city show when those of another show `time`."""
    source, target = find(CITIES, from_city, "city"), find(CITIES, to_city, "city")
    there = minutes_of(as_time(time)) + round(60 * (CITIES[target] - CITIES[source]))
    return {"city": target, "time": clock(there)}


FUNCTIONS = {
    "set_timer": Function(set_timer),
    "set_alarm": Function(set_alarm),
    "add_reminder": Function(add_reminder),
    "convert_time": Function(convert_time, reads=True),
}
