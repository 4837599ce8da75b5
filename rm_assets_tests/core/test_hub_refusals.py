"""What the Hub's refusals mean, from answers as the Hub gives them."""

import httpx2
import pytest

from rm_assets.core.hub_refusals import refusal, refusal_in

TOKEN = {"Authorization": "Bearer hf_never_to_be_seen"}


def answer(status: int, code: str = "", said: str = "", *, token: bool = True, body: object = None) -> httpx2.Response:
    headers = {"X-Error-Code": code, "X-Error-Message": said} if code or said else {}
    request = httpx2.Request("GET", "https://hub.test/api/models/me/m", headers=TOKEN if token else {})
    return httpx2.Response(status, headers=headers, json=body, request=request)


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (answer(401, "", "no such token: hf_never_to_be_seen"), "HUB_002", "no such token: (the token)"),
        (answer(401, "", token=False), "HUB_002", "a request without token"),
        (answer(403, "", "missing permission"), "HUB_003", "the right to do this"),
        (answer(401, "GatedRepo", "restricted", token=False), "HUB_002", "no token was sent"),
        (answer(403, "GatedRepo", "restricted"), "HUB_003", "accept its conditions"),
        (answer(401, "RepoNotFound", token=False), "HUB_003", "it is private and no token was sent"),
        (answer(404, "RepoNotFound"), "HUB_003", "HF_TOKEN gives no access"),
        (answer(404, "RevisionNotFound", "Invalid rev id: v9"), "HUB_003", "Invalid rev id: v9"),
        (answer(403, body={"error": "Private repository storage limit reached"}), "HUB_003", "room on the Hub is used up"),
        (answer(402), "HUB_003", "larger plan"),
        (answer(429), "HUB_001", "wait some minutes"),
        (answer(503), "HUB_001", "the Hub answers 503"),
    ],
)  # fmt: skip
def test_each_refusal_has_its_code_and_its_cure(given: httpx2.Response, code: str, words: str) -> None:
    found = refusal(given, "the model me/m")
    assert found is not None and found.code == code and words in str(found) and "Fix: " in str(found)
    assert "never_to_be_seen" not in str(found)


def test_a_refusal_is_found_below_what_clients_made_of_it() -> None:
    try:
        try:
            raise httpx2.HTTPStatusError("403", request=answer(403).request, response=answer(403, "GatedRepo", "ask"))
        except httpx2.HTTPError as error:
            raise OSError("We couldn't connect to the Hub") from error
    except OSError as error:
        found = refusal_in(error, "the model me/m")
    assert found is not None and found.what == "the model me/m is gated"


def test_an_answer_that_refuses_nothing_is_no_refusal() -> None:
    assert refusal(answer(200), "the model me/m") is None
    assert refusal(answer(404, "EntryNotFound"), "the model me/m") is None
    assert refusal_in(OSError("no network"), "the model me/m") is None
