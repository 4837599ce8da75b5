"""Rows of datasets on the Hugging Face Hub, always those of one known commit."""

from collections.abc import Iterator, Mapping
from typing import Any

from rm_assets.core.errors import DataError
from rm_assets.core.hub_refusals import refusal_in
from rm_assets.core.recipe import DatasetSource

TIMEOUT_SECONDS = 10.0
"""How long the Hub may take to say which commit a revision stands for."""
_commits: dict[str, str] = {}
"""Kept for the process, so that a dataset that it reads twice is read at one commit; begins with those that its inputs were read at."""


def commits_read() -> dict[str, str]:
    """The commit of each dataset that this process or its inputs have read, by `id` or `id@revision`."""
    return dict(_commits)


def go_on_at(commits: Mapping[str, str]) -> None:
    """Reads these datasets at these commits from now on: what is made from rows that came before has to see the same ones."""
    _commits.update(commits)


def dataset_rows(source: DatasetSource) -> Iterator[dict[str, Any]]:
    """The rows in the dataset's order, at the commit of the inputs, else that for which its revision stands when it is first read.

    Raises: DataError DATA_001 if the Hub cannot be reached or refuses, or has no such dataset, revision, config or split.
    """
    import datasets
    import httpx2

    try:
        rows = datasets.load_dataset(
            source.dataset, source.config, split=source.split, revision=_commit(source), streaming=source.streaming
        )
        for row in rows:
            yield dict(row)
    except (OSError, ValueError, httpx2.HTTPError, datasets.exceptions.DatasetsError) as error:
        refused = refusal_in(error, f"the dataset {source.dataset}")
        raise DataError(
            "DATA_001",
            f"the dataset {source.dataset} ({source.split}) cannot be loaded from the Hub",
            why=f"{refused.what}: {refused.why}"
            if refused
            else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix=refused.fix
            if refused
            else "connect to the network, check id, config, split and revision, set HF_TOKEN for a private or gated dataset, "
            "or give the rows as files (kind: files)",
        ) from None


def _commit(source: DatasetSource) -> str:
    """Asks the Hub, since without it `load_dataset` tries for long and then takes whatever commit is in the cache."""
    from huggingface_hub import HfApi

    name = f"{source.dataset}@{source.revision}" if source.revision else source.dataset
    if name not in _commits:
        found = HfApi().dataset_info(source.dataset, revision=source.revision, timeout=TIMEOUT_SECONDS)
        _commits[name] = str(found.sha)
    return _commits[name]
