"""A home: lights, thermostats, doors and a robot vacuum."""

from callwright.evals.executed.world.basics import Function, State, ToolError, find, lookup

ROOMS = ("kitchen", "bedroom", "living room", "bathroom", "hallway", "office", "garage", "dining room", "nursery",
         "basement", "guest room", "laundry room", "attic", "study", "playroom")  # fmt: skip
DOORS = ("front door", "back door", "garage door", "patio door", "side door", "cellar door", "balcony door",
         "garden gate")  # fmt: skip

START = {
    "lights": dict.fromkeys(ROOMS, "off"),
    "thermostats": dict.fromkeys(ROOMS, 15),
    "locked": {door: door in ("cellar door", "garage door") for door in DOORS},
    "vacuuming": {},
}


def switch_light(home: State, /, room: str, state: str) -> str:
    """Turn the lights of a room on or off."""
    room = find(home["lights"], room, "room")
    if state not in ("on", "off"):
        raise ToolError(f"lights are on or off, not {state!r}")
    home["lights"][room] = state
    return f"the lights in the {room} are {state}"


def set_thermostat(home: State, /, room: str, degrees: float) -> str:
    """Set the target temperature of a room."""
    room = find(home["thermostats"], room, "room")
    if not 5 <= degrees <= 35:
        raise ToolError(f"a room cannot be heated to {degrees} degrees")
    home["thermostats"][room] = degrees
    return f"the {room} is set to {degrees} degrees"


def lock_door(home: State, /, door: str, locked: bool) -> str:
    """Lock or unlock a door."""
    door = find(home["locked"], door, "door")
    home["locked"][door] = locked
    return f"the {door} is {'locked' if locked else 'unlocked'}"


def start_vacuum(home: State, /, rooms: list[str], mode: str = "normal") -> str:
    """Send the robot vacuum to rooms."""
    if not rooms:
        raise ToolError("there is no room to clean")
    for room in rooms:
        home["vacuuming"][find(home["lights"], room, "room")] = mode
    return f"the vacuum cleans the {' and the '.join(rooms)} ({mode})"


def _room(home: State, room: str) -> str:
    """A room that a task names is there."""
    found = lookup(home["lights"], room)
    if found is None:
        found = room
        home["lights"][room], home["thermostats"][room] = "off", 15
    return found


def _other_light(home: State, /, room: str, state: str) -> None:
    home["lights"][_room(home, room)] = "off" if state == "on" else "on"


def _other_degrees(home: State, /, room: str, degrees: float) -> None:
    home["thermostats"][_room(home, room)] = 15 if degrees != 15 else 16


def _other_lock(home: State, /, door: str, locked: bool) -> None:
    home["locked"][lookup(home["locked"], door) or door] = not locked


def _rooms(home: State, /, rooms: list[str], mode: str = "normal") -> None:
    for room in rooms:
        _room(home, room)


FUNCTIONS = {
    "switch_light": Function(switch_light, arrange=_other_light),
    "set_thermostat": Function(set_thermostat, arrange=_other_degrees),
    "lock_door": Function(lock_door, arrange=_other_lock),
    "start_vacuum": Function(start_vacuum, arrange=_rooms),
}
