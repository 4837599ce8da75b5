"""The reward model that a command names: a folder, a recipe whose reward model is made, or a model of the Hub."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from rm_assets.cli.results import find
from rm_assets.core.errors import ModelError
from rm_assets.core.recipe import Dtype
from rm_assets.resources.recipes import recipe_book
from rm_assets.serving import RewardModel

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Folder of a checkpoint or release, name of a recipe, or OWNER/NAME on the Hub."),
]  # fmt: skip
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of a model on the Hub.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DtypeName = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16; releases are measured in float32.")]  # fmt: skip
MaxLength = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens of prompt and response together; as trained, else the context, when not given."),
]


def load(
    name: str, *, revision: str | None, device: str, dtype: str, max_length: int | None, token_budget: int | None = None
) -> RewardModel:
    """The model. Raises: ModelError or StoreError in one sentence if there is none of that name."""
    for given, known, option in (
        (device, ("auto", "cpu", "cuda", "mps"), "--device"), (dtype, get_args(Dtype), "--dtype"),
    ):  # fmt: skip
        if given not in known:
            raise typer.BadParameter(f"'{given}' is none of {', '.join(known)}", param_hint=option)
    return RewardModel.load(
        _location(name), revision=revision, device=device, dtype=cast(Dtype, dtype), max_length=max_length,
        token_budget=token_budget,
    )  # fmt: skip


def _location(name: str) -> str | Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name in recipe_book().partition_keys():
        return find(name, "reward_model").path
    if "/" not in name:
        raise ModelError(
            "MODEL_001",
            f"'{name}' is no folder here and no recipe",
            fix=f"{recipe_book().did_you_mean(name)}name a checkpoint's folder, a recipe that `rm-assets recipes list` "
            "shows, or OWNER/NAME on the Hub",
        )
    return name
