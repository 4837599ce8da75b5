"""A real sshd on this machine's loopback, with keys, port and configuration of its own."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rm_assets_tests.processes import free_port, wait_for

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
MISSING = "needs OpenSSH's server and client: apt-get install openssh-server openssh-client"
SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""
CLIENT = """
Host box
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
"""


@contextmanager
def running_sshd(folder: Path) -> Iterator[None]:
    """Runs in `folder`, with a client's `config` beside it, in which the server is `box`."""
    assert SSHD
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # which sshd asks for when root starts it
    port = free_port()
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    (folder / "server").write_text(SERVER.format(folder=folder, port=port))
    (folder / "config").write_text(CLIENT.format(folder=folder, port=port, user=getpass.getuser()))
    with subprocess.Popen([SSHD, "-D", "-f", str(folder / "server"), "-E", str(folder / "log")]) as server:
        try:
            wait_for(lambda: _answers(port), 20, "sshd")
            yield
        finally:
            server.terminate()


def write_python(file: Path, variables: Mapping[str, str]) -> None:
    """This Python as a command that has `variables`."""
    exports = "".join(f"export {name}='{value}'\n" for name, value in variables.items())
    file.write_text(f'#!/bin/sh\n{exports}exec {sys.executable} "$@"\n')
    file.chmod(0o755)


def _answers(port: int) -> bool:
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
