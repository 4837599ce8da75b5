"""One server a test."""

from collections.abc import Iterator

import pytest

from rm_assets_tests.fake_server import FakeServer, serving


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running
