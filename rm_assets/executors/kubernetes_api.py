"""What is asked of a Kubernetes cluster, through its official client, with patience for a server that does not answer."""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Self

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import KubernetesExecutor
from rm_assets.executors.patience import BUSY, Patience

REQUEST_SECONDS = (10, 30)
"""To connect, and between two parts of an answer."""
LOG_SECONDS = (10, 300)
"""A log that is silent for so long is opened again, since its connection may be dead."""


class LogBroken(Exception):
    """A log could not be read to its end."""


class Cluster:
    """A namespace of a cluster. Raises: ExecutorError EXECUTOR_003 where it refuses or does not answer, EXECUTOR_004 at a quota."""

    def __init__(self, executor: KubernetesExecutor) -> None:
        """Raises: ExecutorError EXECUTOR_002 without the client, EXECUTOR_003 without its configuration."""
        try:
            from kubernetes import client
            from urllib3.exceptions import HTTPError
        except ImportError:
            raise ExecutorError(
                "EXECUTOR_002", "the package kubernetes is not installed", fix="pip install 'rm-assets[kubernetes]'"
            ) from None
        settings = client.Configuration()
        settings.retries = False  # what is asked again is asked again here
        _configure(settings, executor.context)
        self._client, self._address, self._namespace = client.ApiClient(settings), settings.host, executor.namespace
        self._batch, self._core, self._kinds = client.BatchV1Api(self._client), client.CoreV1Api(self._client), client
        self._refused, self._unreachable = client.ApiException, HTTPError
        self._patience, self._log_patience = Patience(), Patience()
        self._log_patience.answered()  # a log is asked of a server that has answered

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.rest_client.pool_manager.clear()
        self._client.close()

    def job(self, name: str) -> Any:
        """The Job of a name, or None."""
        return self._ask(self._batch.read_namespaced_job, name, self._namespace, none_at={404})

    def create(self, job: dict[str, Any]) -> Any:
        """The Job that is created, None where one of its name is there."""
        return self._ask(self._batch.create_namespaced_job, self._namespace, job, none_at={409})

    def delete(self, job: Any) -> None:
        """Begins to delete this Job, and no later one of its name; its name is free when its pod is gone."""
        this = self._kinds.V1DeleteOptions(
            propagation_policy="Foreground", preconditions=self._kinds.V1Preconditions(uid=job.metadata.uid)
        )
        self._ask(self._batch.delete_namespaced_job, job.metadata.name, self._namespace, body=this, none_at={404, 409})

    def pod(self, job: Any) -> Any:
        """The pod of a Job, or None."""
        selector = f"batch.kubernetes.io/controller-uid={job.metadata.uid}"
        pods = self._ask(self._core.list_namespaced_pod, self._namespace, label_selector=selector).items
        return pods[0] if pods else None

    def events(self, objects: Iterable[Any]) -> Iterator[str]:
        """What the cluster says of objects, such as why no node takes a pod; nothing to one who may not read events."""
        for uid in (one.metadata.uid for one in objects):
            found = self._ask(
                self._core.list_namespaced_event, self._namespace,
                field_selector=f"involvedObject.uid={uid}", none_at={403},
            )  # fmt: skip
            yield from (f"{event.reason}: {event.message}" for event in (found.items if found else ()))

    def log(self, pod: Any, container: str, since: str | None) -> Iterator[bytes]:
        """The log of a container as it grows, to the container's end, with time stamps; nothing if it is gone. Raises: LogBroken.

        `since` is an RFC 3339 time in whole seconds. The client's own method does not have it, though the API does.
        """
        query = {"container": container, "follow": "true", "timestamps": "true"} | (
            {"sinceTime": since} if since else {}
        )
        response = None
        try:
            response = self._client.call_api(
                "/api/v1/namespaces/{namespace}/pods/{name}/log", "GET",
                {"namespace": self._namespace, "name": pod.metadata.name}, list(query.items()),
                auth_settings=["BearerToken"], _preload_content=False, _request_timeout=LOG_SECONDS,
            )  # fmt: skip
            self._log_patience.answered()
            yield from response.stream(2**16)
        except self._refused as error:
            if error.status in {401, 403}:
                raise self._error(error) from error
            if error.status != 404:
                self._log_patience.failed(self._error(error))
                raise LogBroken from error
        except self._unreachable as error:
            self._log_patience.failed(self._error(error))
            raise LogBroken from error
        finally:
            if response is not None:
                response.close()

    def _ask(self, method: Callable[..., Any], *arguments: Any, none_at: Collection[int] = (), **options: Any) -> Any:
        """What a method of the client gives; None where the server refuses with one of these statuses."""
        while True:
            try:
                answer = method(*arguments, _request_timeout=REQUEST_SECONDS, **options)
            except self._refused as error:
                if error.status in none_at:
                    self._patience.answered()
                    return None
                if error.status not in BUSY:
                    raise self._error(error) from error
                self._patience.failed(self._error(error))
            except self._unreachable as error:
                self._patience.failed(self._error(error))
            else:
                self._patience.answered()
                return answer
            self._patience.wait()

    def _error(self, error: Any) -> ExecutorError:
        """What the server said, or that it said nothing."""
        if not isinstance(error, self._refused):
            return ExecutorError(
                "EXECUTOR_003", f"the Kubernetes API at {self._address} does not answer", why=str(error),
                fix="`kubectl version` shows whether it can be reached; then run again",
            )  # fmt: skip
        said = _message(error.body) or str(error.reason)
        if error.status == 403 and "exceeded quota" in said:
            return ExecutorError(
                "EXECUTOR_004", f"the quota of namespace {self._namespace} is used up", why=said,
                fix="run again when other Jobs have ended, or ask for more quota",
            )  # fmt: skip
        return ExecutorError(
            "EXECUTOR_003", f"Kubernetes refuses with status {error.status}", why=said,
            fix="401 and 403: who may do what is in deploy/kubernetes-role.yaml; else correct execution's `executor`",
        )  # fmt: skip


def _configure(settings: Any, context: str | None) -> None:
    """Reads where the cluster is, and who asks. Raises: ExecutorError EXECUTOR_003."""
    from kubernetes import config

    try:
        if context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(context=context, client_configuration=settings)
    except config.ConfigException as error:
        raise ExecutorError(
            "EXECUTOR_003", "no Kubernetes cluster is configured", why=str(error),
            fix="`kubectl config get-contexts` shows what is; write a kubeconfig, or correct the executor's `context`",
        ) from error  # fmt: skip


def _message(body: str | bytes | None) -> str:
    """The words of the API's `Status`, which is the body of a refusal."""
    try:
        return str(json.loads(body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return ""
