"""Addresses of servers: which are sound in a recipe, and which lie on this machine."""

import ipaddress
from urllib.parse import urlsplit


def address_fault(base_url: str, *, sends_key: bool) -> str | None:
    """What is wrong with the root address of an HTTP API, or None.

    Says nothing of the address itself, since a wrong one can hold a password.
    """
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is no address: {str(error).splitlines()[0]}"
    if parts.scheme not in ("http", "https") or not host:
        return "must begin with http:// or https:// and name a host"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user or password; name the key's environment variable in 'api_key_env'"
    if parts.query or parts.fragment:
        return "must not hold '?' or '#'"
    if sends_key and parts.scheme == "http" and not is_loopback(base_url):
        return (
            "would send the API key unencrypted to another machine; use https, a tunnel to 127.0.0.1, "
            "or a server without key ('api_key_env' left out)"
        )
    return None


def is_loopback(base_url: str) -> bool:
    """True where the address is this very machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
