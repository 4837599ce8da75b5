"""Errors as the service answers them: a status, headers, and a JSON body with the stable code."""

import json

from rm_assets.core.errors import RmAssetsError

STATUS = {
    "SERVICE_002": 422, "SERVICE_003": 413, "SERVICE_004": 401, "SERVICE_005": 503, "SERVICE_006": 504,
    "DATA_003": 422, "MODEL_003": 422, "MODEL_004": 422, "MODEL_005": 422,
}  # fmt: skip
"""What a request can be at fault for; any other error is the service's own, 500."""
HEADERS = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}


def status_of(error: RmAssetsError) -> int:
    """The HTTP status of an error."""
    return STATUS.get(error.code, 500)


def headers_of(status: int) -> dict[str, str]:
    """The headers of an answer with this status."""
    return {"content-type": "application/json", **HEADERS.get(status, {})}


def fault_body(error: RmAssetsError) -> bytes:
    """The body of the answer."""
    return json.dumps({"error": error.to_dict()}).encode()
