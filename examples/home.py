"""Three functions of a small home, to try `callwright agent` with."""

from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

LIGHTS = {"kitchen": "off", "bedroom": "off", "hall": "on"}


def switch_light(room: Literal["kitchen", "bedroom", "hall"], state: Literal["on", "off"]) -> str:
    """Turn the light in a room on or off.

    Args:
        room: The room whose light is meant.
        state: Whether the light is to be on or off.
    """
    LIGHTS[room] = state
    return f"the light in the {room} is {state}"


def set_timer(minutes: int) -> str:
    """Start a timer.

    Args:
        minutes: After how many minutes it rings.
    """
    return f"a timer of {minutes} minutes is running"


def tell_time(timezone: str = "UTC") -> str:
    """Tell what time it is.

    Args:
        timezone: An IANA name such as Europe/Oslo.
    """
    return f"{datetime.now(ZoneInfo(timezone)):%H:%M}"
