"""The webhook that takes alerts. Its address is a secret: it stands in no message, log line or file of ours."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rm_assets.core.alerts import Alert, as_json, as_slack
from rm_assets.core.errors import SetupError

FORMATS: dict[str, Callable[[Alert, str], dict[str, Any]]] = {"json": as_json, "slack": as_slack}
DEFAULT_WEB_UI = "http://localhost:3000"
SECONDS_TO_ANSWER = 10.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET, to which a page for people would answer 200."""

    def redirect_request(self, *request: Any) -> None:
        """None: the redirect itself is the answer."""


@dataclass(frozen=True)
class Webhook:
    """Where alerts go, and how they look there."""

    address: str = field(repr=False)
    form: Callable[[Alert, str], dict[str, Any]]
    web_ui: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Webhook | None":
        """As the environment says, None where it names no webhook. Raises: SetupError SETUP_009."""
        address = environment.get("RM_ASSETS_ALERT_WEBHOOK", "")
        if not address:
            return None
        if not address.startswith(("http://", "https://")):
            raise SetupError(
                "SETUP_009", "the value of RM_ASSETS_ALERT_WEBHOOK is no address of a webhook",
                why="it begins with neither https:// nor http://", fix="copy the whole address",
            )  # fmt: skip
        form = environment.get("RM_ASSETS_ALERT_FORMAT") or "json"
        if form not in FORMATS:
            raise SetupError(
                "SETUP_009", f"RM_ASSETS_ALERT_FORMAT is '{form}'", fix=f"set it to one of {', '.join(FORMATS)}"
            )
        return cls(address, FORMATS[form], environment.get("RM_ASSETS_URL") or DEFAULT_WEB_UI)

    def send(self, alert: Alert) -> None:
        """Returns once the alert is taken (an answer of 200 to 299). Raises: SetupError SETUP_009."""
        body = json.dumps(self.form(alert, self.web_ui)).encode()
        headers = {"Content-Type": "application/json"}
        try:
            request = urllib.request.Request(self.address, body, headers, method="POST")
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=SECONDS_TO_ANSWER):
                return
        except urllib.error.HTTPError as error:
            error.close()
            why = f"it answered {error.code}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f"it cannot be reached ({type(getattr(error, 'reason', error)).__name__})"
        # From nothing: what the libraries say of an error may hold the address.
        raise SetupError(
            "SETUP_009", f"the webhook RM_ASSETS_ALERT_WEBHOOK did not take the alert '{alert.key}'",
            why=why, fix="if it goes on, correct the address; no alert is lost, each look tries again",
        ) from None  # fmt: skip
