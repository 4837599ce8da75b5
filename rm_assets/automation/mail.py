"""Dagster's own e-mail of failed runs, where the environment names a mail server."""

from collections.abc import Mapping

import dagster as dg

from rm_assets.automation.webhook import DEFAULT_WEB_UI
from rm_assets.core.errors import SetupError

REQUIRED = ("RM_ASSETS_SMTP_FROM", "RM_ASSETS_SMTP_PASSWORD", "RM_ASSETS_SMTP_TO")
DEFAULT_PORTS = {"SSL": "465", "STARTTLS": "587"}


def mail_sensors(environment: Mapping[str, str]) -> list[dg.SensorDefinition]:
    """One sensor, or none without RM_ASSETS_SMTP_HOST. Raises: SetupError SETUP_009 for settings that lack something."""
    host, kind = environment.get("RM_ASSETS_SMTP_HOST"), environment.get("RM_ASSETS_SMTP_TYPE") or "SSL"
    if not host:
        return []
    port = environment.get("RM_ASSETS_SMTP_PORT") or DEFAULT_PORTS.get(kind, "")
    wrong = [name for name in REQUIRED if not environment.get(name)]
    wrong += [] if kind in DEFAULT_PORTS else ["RM_ASSETS_SMTP_TYPE"]
    wrong += [] if port.isdecimal() else ["RM_ASSETS_SMTP_PORT"]
    if wrong:
        raise SetupError(
            "SETUP_009", f"failed runs cannot be mailed: {', '.join(wrong)} not set, or not valid",
            fix="set what is named, SSL or STARTTLS as type; or remove RM_ASSETS_SMTP_HOST, and nothing is mailed",
        )  # fmt: skip
    sensor = dg.make_email_on_run_failure_sensor(
        name="mail_failed_runs",
        email_from=environment["RM_ASSETS_SMTP_FROM"],
        email_password=environment["RM_ASSETS_SMTP_PASSWORD"],
        email_to=[each.strip() for each in environment["RM_ASSETS_SMTP_TO"].split(",")],
        smtp_host=host,
        smtp_type=kind,
        smtp_port=int(port),
        smtp_user=environment.get("RM_ASSETS_SMTP_USER"),
        webserver_base_url=environment.get("RM_ASSETS_URL") or DEFAULT_WEB_UI,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    return [sensor]
