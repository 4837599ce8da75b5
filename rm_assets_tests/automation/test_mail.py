"""The e-mail of a failed run, by Dagster's sensor, as a mail server on loopback takes it."""

import base64
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import dagster as dg
import pytest

from rm_assets.automation.mail import mail_sensors
from rm_assets.core.errors import SetupError

SETTINGS = {
    "RM_ASSETS_SMTP_HOST": "127.0.0.1", "RM_ASSETS_SMTP_FROM": "me@example.org", "RM_ASSETS_SMTP_PASSWORD": "SECRET",
    "RM_ASSETS_SMTP_TO": "you@example.org, all@example.org", "RM_ASSETS_URL": "http://dagster.example",
}  # fmt: skip
ANSWERS = {b"EHLO": b"250-here\r\n250 AUTH PLAIN", b"AUTH": b"235 ok", b"DATA": b"354 go on", b"QUIT": b"221 bye"}


class MailServer:
    """Takes one message over TLS, and keeps what it was told."""

    def __init__(self, certificate: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.heard = self._socket.getsockname()[1], list[str]()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self._socket, self._context.wrap_socket(self._socket.accept()[0], server_side=True) as connection:
            lines, in_message = connection.makefile("rb"), False
            connection.sendall(b"220 here\r\n")
            for line in lines:
                self.heard.append(line.decode().rstrip())
                if in_message and line != b".\r\n":
                    continue
                in_message = line.upper() == b"DATA\r\n"
                connection.sendall(ANSWERS.get(line.split()[0].upper(), b"250 ok") + b"\r\n")


def test_without_a_mail_server_there_is_no_sensor() -> None:
    assert mail_sensors({}) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"RM_ASSETS_SMTP_PASSWORD": ""}, "RM_ASSETS_SMTP_PASSWORD not"),
        ({"RM_ASSETS_SMTP_TYPE": "TLS"}, "RM_ASSETS_SMTP_TYPE, RM_ASSETS_SMTP_PORT not"),
        ({"RM_ASSETS_SMTP_PORT": "x"}, "RM_ASSETS_SMTP_PORT not"),
    ],
)
def test_what_is_missing_is_named_by_every_tick_and_stops_nothing_else(settings: dict[str, str], named: str) -> None:
    (sensor,) = mail_sensors({**SETTINGS, **settings})
    assert (sensor.name, sensor.default_status) == ("mail_failed_runs", dg.DefaultSensorStatus.RUNNING)
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(SetupError, match=f"SETUP_009.*: {named}"):
        sensor(dg.build_sensor_context(instance))


def test_a_failed_run_is_mailed_with_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    certificate = tmp_path / "server.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*make, "-keyout", certificate, "-out", tmp_path / "only.pem"], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "only.pem").read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "only.pem"))
    server = MailServer(certificate)
    (sensor,) = mail_sensors({**SETTINGS, "RM_ASSETS_SMTP_PORT": str(server.port)})
    assert (sensor.name, sensor.default_status) == ("mail_failed_runs", dg.DefaultSensorStatus.RUNNING)

    @dg.op
    def step() -> None:
        raise ValueError("no")

    @dg.job
    def work() -> None:
        step()

    with dg.DagsterInstance.ephemeral() as instance:
        result = work.execute_in_process(instance=instance, raise_on_error=False)
        run, event = result.dagster_run, result.get_run_failure_event()
        context = dg.build_run_status_sensor_context(sensor.name, event, instance, run).for_run_failure()
        sensor(context)
    server.thread.join(timeout=10)
    assert base64.b64encode(b"\0me@example.org\0SECRET").decode() in server.heard[1]
    assert [line for line in server.heard if line.lower().startswith("rcpt")] == [
        "rcpt TO:<you@example.org>",
        "rcpt TO:<all@example.org>",
    ]
    message = "\n".join(server.heard)
    assert "Subject: Dagster Run Failed: work" in message and f"http://dagster.example/runs/{run.run_id}" in message
