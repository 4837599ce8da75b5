"""What is asked of Vertex AI and Cloud Logging over REST, signed by google-auth.

The addresses may be set as for gcloud: CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM and _LOGGING.
"""

import os
from datetime import datetime, timedelta
from typing import Any, Self

from rm_assets.core.errors import ExecutorError
from rm_assets.executors.patience import BUSY, Patience

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
REQUEST_SECONDS = (10, 30)
"""To connect, and between two parts of an answer."""
SECONDS_READ_AGAIN = 60
ENTRIES_AT_ONCE = 1000
TOO_MANY = 429
"""The status at a quota: of machines where a job is submitted, else of questions a minute."""


class VertexApi:
    """Custom jobs of a project in a region.

    Raises: ExecutorError EXECUTOR_003 where Google refuses or does not answer, EXECUTOR_004 at a quota.
    """

    def __init__(self, project: str, region: str) -> None:
        """Raises: ExecutorError EXECUTOR_002 without google-auth, EXECUTOR_003 without credentials."""
        try:
            import google.auth
            import requests
            from google.auth.exceptions import GoogleAuthError
            from google.auth.transport.requests import AuthorizedSession
        except ImportError:
            raise ExecutorError(
                "EXECUTOR_002", "the package google-auth is not installed", fix="pip install 'rm-assets[vertex]'"
            ) from None
        try:
            credentials, _ = google.auth.default(scopes=[SCOPE])
        except GoogleAuthError as error:
            raise ExecutorError(
                "EXECUTOR_003", "no Google credentials are found", why=str(error),
                fix="`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
            ) from error  # fmt: skip
        self._session, self._patience = AuthorizedSession(credentials), Patience()
        self._failures = (requests.RequestException, GoogleAuthError)
        self._project, self._parent = project, f"projects/{project}/locations/{region}"
        self._vertex = _address("AIPLATFORM", f"https://{region}-aiplatform.googleapis.com/")
        self._logging = _address("LOGGING", "https://logging.googleapis.com/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        """Submits a job, once, and gives it with its name: one that was submitted without an answer would be there twice."""
        try:
            return self._ask_once("POST", f"{self._vertex}v1/{self._parent}/customJobs", json=job)
        except _Passing as passing:
            if passing.status == TOO_MANY:
                raise no_machine(passing.error.why) from passing
            raise passing.error from passing

    def jobs(self, display_name: str) -> list[dict[str, Any]]:
        """The jobs of a display name, at most 100 of them."""
        query = {"filter": f'display_name="{display_name}"', "pageSize": "100"}
        found: list[dict[str, Any]] = self._ask("GET", f"{self._vertex}v1/{self._parent}/customJobs", params=query).get(
            "customJobs", []
        )
        return found

    def job(self, name: str) -> dict[str, Any]:
        """A job as it is now."""
        return self._ask("GET", f"{self._vertex}v1/{name}")

    def cancel(self, name: str) -> None:
        """Begins to end a job."""
        self._ask("POST", f"{self._vertex}v1/{name}:cancel", json={})

    def log(self, job_id: str, since: str) -> list[dict[str, Any]]:
        """The log entries of a job's container from a minute before `since` (RFC 3339) on, the oldest first."""
        start = datetime.fromisoformat(since) - timedelta(seconds=SECONDS_READ_AGAIN)
        body: dict[str, Any] = {
            "resourceNames": [f"projects/{self._project}"],
            "filter": f'resource.type="ml_job" AND resource.labels.job_id="{job_id}" '
            f'AND resource.labels.task_name="workerpool0-0" AND timestamp>="{start.isoformat()}"',
            "orderBy": "timestamp asc",
            "pageSize": ENTRIES_AT_ONCE,
        }
        entries: list[dict[str, Any]] = []
        while True:
            page = self._ask("POST", f"{self._logging}v2/entries:list", json=body)
            entries += page.get("entries", [])
            if not page.get("nextPageToken"):
                return entries
            body["pageToken"] = page["nextPageToken"]

    def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        """The answer; asked again while the server is busy or silent."""
        while True:
            try:
                return self._ask_once(method, url, **options)
            except _Passing as passing:
                self._patience.failed(passing.error)
            self._patience.wait()

    def _ask_once(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._session.request(method, url, timeout=REQUEST_SECONDS, **options)
            answer: dict[str, Any] = response.json() if response.content else {}
        except self._failures as error:
            raise _Passing(_unreachable(url, str(error))) from error
        if response.status_code in BUSY:
            raise _Passing(_refusal(response.status_code, answer), response.status_code)
        if not response.ok:
            raise _refusal(response.status_code, answer)
        self._patience.answered()
        return answer


class _Passing(Exception):
    """What may be over when it is asked again."""

    def __init__(self, error: ExecutorError, status: int | None = None) -> None:
        self.error, self.status = error, status


def _address(service: str, default: str) -> str:
    return os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}", default).rstrip("/") + "/"


def _unreachable(url: str, why: str) -> ExecutorError:
    return ExecutorError(
        "EXECUTOR_003", f"{url.split('/v', 1)[0]} does not answer, or the credentials are not taken", why=why,
        fix="`gcloud auth application-default print-access-token` shows whether there are credentials; then run again",
    )  # fmt: skip


def _refusal(status: int, answer: dict[str, Any]) -> ExecutorError:
    return ExecutorError(
        "EXECUTOR_003", f"Google Cloud refuses with status {status}", why=answer.get("error", {}).get("message", ""),
        fix="correct execution's `executor`; 403: whoever submits needs roles/aiplatform.user and roles/logging.viewer",
    )  # fmt: skip


def no_machine(why: str) -> ExecutorError:
    """That Vertex AI has no such machine left, or none for this project."""
    return ExecutorError(
        "EXECUTOR_004", "Vertex AI has no such machine for the project", why=why,
        fix="ask for more quota, take another `machine`, `accelerator` or `region`, or run again later",
    )  # fmt: skip
