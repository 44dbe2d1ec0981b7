"""A playground with a tiny model, for the tests of its routes and of its page."""

import contextlib

from fixtures_serve import TIME, WEATHER, open_obedient, served

from callwright.runtime import threads
from callwright.serve.limits import Limits
from callwright.serve.playground import Options, Playground

LIMITS = Limits(body_bytes=200_000, body_seconds=1.0, tools=16, running=4, waiting=12, max_tokens=120)


@contextlib.contextmanager
def playground(folder, place, base=True, served_as=None, **options):
    """(address, playground) of a served tiny model; served_as: what it is opened with, such as its decision."""
    run, made = place / "results" / "mine", []
    (run / "training").mkdir(parents=True)
    (run / "training" / "training.json").write_text("{}")
    (run / "report.html").write_text("<!doctype html><title>the report</title><script>1</script>")

    def call(asked):
        made.append(asked)
        return "sunny", False

    def attach(service):
        found = Options(
            [WEATHER, TIME], place / "corrections.jsonl", run, call, "your functions", lambda: ("a curve", True)
        )
        service.playground = Playground(service, found, open_obedient(folder) if base else None)
        service.playground.made = made

    with (
        threads.blas_threads(1),
        served(open_obedient(folder, **served_as or {}), LIMITS, attach, **options) as (address, service),
    ):
        yield address, service.playground
