"""The points of a learning curve: the same recipe on a share of its training prompts."""

from rm_assets.core.recipe import Recipe, TrainingSection


def at_shares(recipe: Recipe) -> dict[float, Recipe]:
    """The recipe at each share of its learning curve; none without a curve. Their names never stand in for the real one's."""
    curve = recipe.evaluation.learning_curve
    return {share: _at_share(recipe, share) for share in curve.shares} if curve else {}


def _at_share(recipe: Recipe, share: float) -> Recipe:
    """As many passes over fewer prompts: what is counted in optimizer steps shrinks with the share."""
    training = recipe.training
    assert isinstance(training, TrainingSection)  # a recipe with a curve and nothing to train is refused
    most, validation = training.max_optimizer_steps, training.validation
    update = {
        "share_of_prompts": training.share_of_prompts * share,
        "max_optimizer_steps": most and _shrunk(share, most),
        "validation": validation
        and validation.model_copy(update={"every_steps": _shrunk(share, validation.every_steps)}),
    }
    name = f"{recipe.name} (share {share})"
    return recipe.model_copy(update={"name": name, "training": training.model_copy(update=update)})


def _shrunk(share: float, steps: int) -> int:
    return max(1, round(share * steps))
