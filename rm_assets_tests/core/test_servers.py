"""Which addresses of servers are sound."""

import pytest

from rm_assets.core.servers import address_fault, is_loopback


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000/v1", "https://example.org/v1", "http://[::1]:80"])
def test_a_sound_address_may_get_the_key(address: str) -> None:
    assert address_fault(address, sends_key=True) is None


@pytest.mark.parametrize("address", ["http://10.0.0.7:8000/v1", "http://gpu/v1", "http://localhost.example.org"])
def test_a_key_is_not_sent_unencrypted_to_another_machine(address: str) -> None:
    assert "unencrypted" in str(address_fault(address, sends_key=True))
    assert address_fault(address, sends_key=False) is None


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:8000/v1", "must begin with"),
        ("ftp://host", "must begin with"),
        ("http://", "name a host"),
        ("http://host:99999", "is no address"),
        ("https://me:pw@host", "user or password"),
        ("https://host/v1?key=pw", "must not hold '?'"),
    ],
)
def test_an_address_that_is_not_one_is_told_without_repeating_it(address: str, words: str) -> None:
    fault = str(address_fault(address, sends_key=False))
    assert words in fault and "pw" not in fault


def test_this_machine_is_known_by_its_names() -> None:
    assert all(is_loopback(f"http://{host}:1/v1") for host in ("127.0.0.1", "127.1.2.3", "[::1]", "localhost"))
    assert not is_loopback("http://0.0.0.0:1") and not is_loopback("http://192.168.0.1")
