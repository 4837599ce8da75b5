"""What a task says while it works: one line on standard output each, EVENT_MARK and a JSON object with the key "event".

log {message} · progress {done, total, unit} · training {num_steps, device} (begins, or goes on) · metrics {step, values} · error {error} · found {} (another run has made it)
waiting {} (for a lease that another process holds) · working {} (again) · begins {} and ends {status} (of a task elsewhere, for the executor alone);
every other line is output {message}.
"""

import json
from typing import Any

EVENT_MARK = "@rm "


def event_line(**event: Any) -> str:
    """The line of an event, without its line end."""
    return EVENT_MARK + json.dumps(event)


def parse_line(line: str) -> dict[str, Any]:
    """The event of a line; a line cut by a dying process is output like any other."""
    if line.startswith(EVENT_MARK):
        try:
            event = json.loads(line.removeprefix(EVENT_MARK))
        except ValueError:
            event = None
        if isinstance(event, dict) and "event" in event:
            return event
    return {"event": "output", "message": line.rstrip("\n")}
