"""Every error that a user can meet, with a stable code.

RmAssetsError
├── SetupError     SETUP_*    an installation or a machine that is not as it must be
├── RecipeError    RECIPE_*   a recipe cannot be found, read, extended or validated
├── DataError      DATA_*     rows that nothing sound can be built on
├── ModelError     MODEL_*    a checkpoint that cannot do what the recipe asks of it
├── HubError       HUB_*      a Hugging Face Hub that cannot be reached or gives no access
├── ServerError    SERVER_*   a model server that cannot be used as the recipe asks
├── ServiceError   SERVICE_*  a scoring service that cannot start as asked, or a request that it does not take
├── StoreError     STORE_*    results that cannot be found, written or read
├── SearchError    SEARCH_*   a search over training settings that cannot run, or comes to nothing
├── TaskError      TASK_*     a task process that ended without its manifest
├── ExecutorError  EXECUTOR_* a place where tasks run that cannot be used
├── ReleaseError   RELEASE_*  a release folder that must not leave the house
├── TrackingError  TRACKING_* figures that a tracking service did not take
└── PlanError      PLAN_*     a plan that lacks a number, or takes one that is no number

A message says what happened, why, and how to mend it. `ERROR_CODES` is the catalogue; docs/errors.md is made from it.
"""

from typing import Any, ClassVar

ERROR_CODES: dict[str, str] = {
    "SETUP_001": "This Python is not one that rm_assets runs on.",
    "SETUP_002": "A package is missing, or of a version that does not fit.",
    "SETUP_003": "Packages are of other versions than the tested ones.",
    "SETUP_004": "The GPU cannot be used, or not as the recipe asks.",
    "SETUP_005": "Little disk space or memory is left.",
    "SETUP_006": "Dagster's instance cannot be opened.",
    "SETUP_007": "The definitions do not load.",
    "SETUP_008": "Task processes do not start.",
    "SETUP_009": "Alerts cannot be sent as the environment says.",
    "RECIPE_001": "No recipe of that name.",
    "RECIPE_002": "The recipe file is not readable YAML or not a mapping.",
    "RECIPE_003": "A key, type or value of the recipe is not valid.",
    "RECIPE_004": "`extends` names an unknown recipe or forms a cycle.",
    "RECIPE_005": "Two recipe files have the same name.",
    "DATA_001": "A source file does not exist, or a pattern matches nothing.",
    "DATA_002": "A source file is malformed.",
    "DATA_003": "A row lacks a required field, or the field is empty or of another type.",
    "DATA_004": "A split is empty.",
    "DATA_005": "No pair is left, for example because every pair is tied.",
    "DATA_006": "Some prompts have no response.",
    "DATA_007": "Recorded rewards do not line up with the responses.",
    "DATA_008": "A gold reward is not a finite number.",
    "DATA_009": "A reference that the verifier needs is missing or has no final answer.",
    "DATA_010": "Two rows contradict each other, for example the same prompt with two references.",
    "DATA_011": "The test prompts are not those that the recipe pins.",
    "DATA_012": "An evaluation set is empty.",
    "DATA_013": "Prompts wait for a person to rank their responses.",
    "DATA_014": "A scorer of a combined gold gives every response the same reward.",
    "DATA_015": "Too many prompts are alike to group near-duplicates.",
    "DATA_016": "A part of a mixture gives no prompt.",
    "MODEL_001": "The checkpoint cannot be found or reached.",
    "MODEL_002": "The model type is unknown or cannot do this work.",
    "MODEL_003": "The checkpoint has no chat template.",
    "MODEL_004": "The checkpoint has no pad token, or its pad token is its end-of-sequence token.",
    "MODEL_005": "The context is too short.",
    "MODEL_006": "The model gave a reward that is not a finite number.",
    "MODEL_007": "The model's rope scaling makes a reward depend on its batch.",
    "MODEL_008": "The training loss left its range.",
    "MODEL_009": "There are not enough devices for the training's processes.",
    "MODEL_010": "The model does not fit into the device's free memory.",
    "HUB_001": "The Hugging Face Hub cannot be reached.",
    "HUB_002": "The Hub's token is missing or refused.",
    "HUB_003": "The Hub gives this account no access to a repository.",
    "SERVER_001": "The server cannot be reached, or failed at every try.",
    "SERVER_002": "The server's API key is missing or refused.",
    "SERVER_003": "The server does not offer the model, or its address is not that of the API.",
    "SERVER_004": "The server refused a request.",
    "SERVER_005": "The server's answer is not what the API promises.",
    "SERVER_006": "The account's quota at the server is used up.",
    "SERVICE_001": "The scoring service cannot start as asked.",
    "SERVICE_002": "The request is not one that the service knows.",
    "SERVICE_003": "The request's body is too large.",
    "SERVICE_004": "The request's token is missing or wrong.",
    "SERVICE_005": "The service has no room for another request now.",
    "SERVICE_006": "The request was not answered within the time limit.",
    "SERVICE_007": "The model failed at the request.",
    "STORE_001": "The disk is full or the store is not writable.",
    "STORE_002": "A result that is needed has not been made yet.",
    "STORE_003": "A stored result is damaged.",
    "STORE_004": "The store's URL cannot be used: it is not written as one, its package is missing, or it holds a password or one of `*?[]`.",
    "STORE_005": "The store's bucket does not exist or gives no access.",
    "STORE_006": "The store's server does not answer.",
    "SEARCH_001": "The recipe says nothing to search.",
    "SEARCH_002": "The package that searches is not installed.",
    "SEARCH_003": "No trial of the search gave a value.",
    "SEARCH_004": "A recipe file that the search did not write is in the way.",
    "TASK_001": "The task process ended without its manifest.",
    "TASK_002": "The task failed with an unexpected error.",
    "TASK_003": "The task ran longer than its time limit.",
    "TASK_004": "The process of a run has died.",
    "EXECUTOR_001": "A task is to run on another machine, which cannot reach the store.",
    "EXECUTOR_002": "The package or command of an executor is missing.",
    "EXECUTOR_003": "The machine, cluster or API that is to run a task cannot be reached or refuses.",
    "EXECUTOR_004": "No machine could be had: none is in stock, or the quota is used up.",
    "EXECUTOR_005": "A machine could not be deleted, or a job not be stopped.",
    "RELEASE_001": "The release folder lacks a required file, or a file has no sound size.",
    "RELEASE_002": "The released model does not give the canary rewards of the report.",
    "RELEASE_003": "The release cannot be pushed to the Hub.",
    "RELEASE_004": "The gate refused the model.",
    "RELEASE_005": "A file of the release is a pickle, or may hold one.",
    "RELEASE_006": "A file of the release holds a secret.",
    "RELEASE_007": "No such release, or no release under this alias.",
    "RELEASE_008": "There is no release to roll back to, or its files are gone.",
    "RELEASE_009": "The adapter of the release cannot be used with its base.",
    "TRACKING_001": "Weights & Biases did not take a run.",
    "PLAN_001": "The planner lacks a number that it needs, or got two that exclude each other.",
    "PLAN_002": "The price file cannot be read or is not valid.",
}


class RmAssetsError(Exception):
    """What happened, why, and how to mend it.

    Raises: KeyError if `code` is not in the catalogue.
    """

    family: ClassVar[str] = ""

    def __init__(self, code: str, what: str, *, why: str = "", fix: str = "") -> None:
        if code not in ERROR_CODES or not code.startswith(self.family):
            raise KeyError(f"{code} is not a catalogued {self.family or 'error'} code")
        self.code, self.what, self.why, self.fix = code, what, why, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [f"[{self.code}] {_sentence(self.what)}"]
        parts += [f"Why: {_sentence(self.why)}"] if self.why else []
        parts += [f"Fix: {_sentence(self.fix)}"] if self.fix else []
        return "\n  ".join(parts)

    def to_dict(self) -> dict[str, str]:
        """The error as plain data, so that it can cross a process border."""
        return {"code": self.code, "what": self.what, "why": self.why, "fix": self.fix}

    def __reduce__(self) -> tuple[Any, ...]:
        return RmAssetsError.from_dict, (self.to_dict(),)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "RmAssetsError":
        """The inverse of `to_dict`, of the class that owns the code."""
        owner = next(c for c in RmAssetsError.__subclasses__() if data["code"].startswith(c.family))
        return owner(data["code"], data["what"], why=data["why"], fix=data["fix"])


def _sentence(text: str) -> str:
    return text if text.endswith(("?", "!")) else text.rstrip(".") + "."


class SetupError(RmAssetsError):
    """An installation or a machine that is not as it must be."""

    family = "SETUP_"


class RecipeError(RmAssetsError):
    """A recipe cannot be found, read, extended or validated."""

    family = "RECIPE_"


class DataError(RmAssetsError):
    """Rows that nothing sound can be built on."""

    family = "DATA_"


class ModelError(RmAssetsError):
    """A checkpoint that cannot do what the recipe asks of it."""

    family = "MODEL_"


class HubError(RmAssetsError):
    """A Hugging Face Hub that cannot be reached, or gives no access."""

    family = "HUB_"


class ServerError(RmAssetsError):
    """A model server that cannot be used as the recipe asks."""

    family = "SERVER_"


class ServiceError(RmAssetsError):
    """A scoring service that cannot start as asked, or a request that it does not take."""

    family = "SERVICE_"


class StoreError(RmAssetsError):
    """Results that cannot be found, written or read."""

    family = "STORE_"


class SearchError(RmAssetsError):
    """A search over training settings that cannot run, or comes to nothing."""

    family = "SEARCH_"


class TaskError(RmAssetsError):
    """A task process that ended without its manifest."""

    family = "TASK_"


class ExecutorError(RmAssetsError):
    """A place where tasks run that cannot be used."""

    family = "EXECUTOR_"


class ReleaseError(RmAssetsError):
    """A release folder that must not leave the house."""

    family = "RELEASE_"


class TrackingError(RmAssetsError):
    """Figures that a tracking service did not take."""

    family = "TRACKING_"


class PlanError(RmAssetsError):
    """A plan that lacks a number, or takes one that is no number."""

    family = "PLAN_"
