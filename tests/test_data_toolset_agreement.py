"""One of them is singular."""

import pytest

from callwright.data.toolset.agreement import agree


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("for 1 days", "for 1 day"), ("one nights, please", "one night, please"), ("1 people", "1 person"),
        ("1 copies of it", "1 copy of it"), ("1 boxes", "1 box"), ("1 dishes", "1 dish"), ("1 addresses", "1 address"),
        ("11 days", "11 days"), ("2.1 days", "2.1 days"), ("0.1 miles", "0.1 miles"), ("1 is enough", "1 is enough"),
        ("21 days and 1 hours", "21 days and 1 hour"), ("room T-1 rooms", "room T-1 rooms"), ("at 1 pm", "at 1 pm"),
        ("1 bus", "1 bus"), ("1 glass", "1 glass"), ("option 1 as usual", "option 1 as usual"),
        ("1 rock-n-roll", "1 rock-n-roll"), ("12:1 days", "12:1 days"), ("One days", "One day"),
    ],
)  # fmt: skip
def test_a_lone_one_takes_the_singular(text, right):
    assert agree(text) == right
