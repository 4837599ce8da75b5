"""A quiet console logger: what tasks say and what fails, one line each, without Dagster's own events."""

import logging
import sys

import dagster as dg


class _SaidByPeople(logging.Filter):
    """Lets through messages of asset code, and not what Dagster says of steps and their order."""

    def filter(self, record: logging.LogRecord) -> bool:
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        chatter = event is not None or record.getMessage().endswith("Not executing.")
        return not chatter or record.levelno <= logging.DEBUG


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = getattr(record, "dagster_meta", {}).get("orig_message") or record.getMessage()
        return f"{self.formatTime(record, '%H:%M:%S')}  {message}"


@dg.logger(
    {"log_level": dg.Field(str, default_value="INFO", is_required=False)},
    description="One line for each message of a task.",
)
def plain(context: dg.InitLoggerContext) -> logging.Logger:
    """Writes to standard error."""
    logger = logging.Logger("rm_assets", level=context.logger_config["log_level"].upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_SaidByPeople())
    handler.setFormatter(_Line())
    logger.addHandler(handler)
    return logger
