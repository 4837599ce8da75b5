"""Dagster's own e-mail of failed runs, where the environment names a mail server."""

from collections.abc import Mapping

import dagster as dg

from rm_assets.automation.webhook import DEFAULT_WEB_UI
from rm_assets.core.errors import SetupError

NAME = "mail_failed_runs"
REQUIRED = ("RM_ASSETS_SMTP_FROM", "RM_ASSETS_SMTP_PASSWORD", "RM_ASSETS_SMTP_TO")
DEFAULT_PORTS = {"SSL": "465", "STARTTLS": "587"}


def mail_sensors(environment: Mapping[str, str]) -> list[dg.SensorDefinition]:
    """One sensor, or none without RM_ASSETS_SMTP_HOST. With settings that lack something its every tick says so (SETUP_009):
    what it cannot mail is no reason for a run to stop."""
    if not environment.get("RM_ASSETS_SMTP_HOST"):
        return []
    try:
        return [_mail_sensor(environment)]
    except SetupError as error:
        return [_wrongly_set(error)]


def _wrongly_set(error: SetupError) -> dg.SensorDefinition:
    @dg.sensor(
        name=NAME, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING, description=str(error)
    )
    def mail_failed_runs() -> None:
        raise error

    return mail_failed_runs


def _mail_sensor(environment: Mapping[str, str]) -> dg.SensorDefinition:
    host, kind = environment.get("RM_ASSETS_SMTP_HOST"), environment.get("RM_ASSETS_SMTP_TYPE") or "SSL"
    port = environment.get("RM_ASSETS_SMTP_PORT") or DEFAULT_PORTS.get(kind, "")
    wrong = [name for name in REQUIRED if not environment.get(name)]
    wrong += [] if kind in DEFAULT_PORTS else ["RM_ASSETS_SMTP_TYPE"]
    wrong += [] if port.isdecimal() else ["RM_ASSETS_SMTP_PORT"]
    if wrong:
        raise SetupError(
            "SETUP_009", f"failed runs cannot be mailed: {', '.join(wrong)} not set, or not valid",
            fix="set what is named, SSL or STARTTLS as type; or remove RM_ASSETS_SMTP_HOST, and nothing is mailed",
        )  # fmt: skip
    return dg.make_email_on_run_failure_sensor(
        name=NAME,
        email_from=environment["RM_ASSETS_SMTP_FROM"],
        email_password=environment["RM_ASSETS_SMTP_PASSWORD"],
        email_to=[each.strip() for each in environment["RM_ASSETS_SMTP_TO"].split(",")],
        smtp_host=str(host),
        smtp_type=kind,
        smtp_port=int(port),
        smtp_user=environment.get("RM_ASSETS_SMTP_USER"),
        webserver_base_url=environment.get("RM_ASSETS_URL") or DEFAULT_WEB_UI,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
