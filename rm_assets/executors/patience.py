"""How long an executor bears an API that does not answer."""

import time

from rm_assets.core.errors import ExecutorError

PATIENCE_SECONDS = 120.0
"""How long a server that has answered before may be silent: an upgrade of a control plane takes a minute."""
RETRY_SECONDS = 1.0
BUSY = {429, 500, 502, 503, 504}
"""HTTP statuses after which the same request is sent again."""


class Patience:
    """Bears failures for a while, once there has been an answer."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since: float | None = None

    def answered(self) -> None:
        """Something was answered."""
        self._seconds, self._since = PATIENCE_SECONDS, None

    def failed(self, error: ExecutorError) -> None:
        """Raises: `error`, when patience is at its end."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= self._seconds:
            raise error

    def wait(self) -> None:
        """Until it is asked again."""
        time.sleep(RETRY_SECONDS)
