"""`rm-assets`: build a recipe, look at recipes and results. Everything it builds is a run in Dagster."""

import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from rm_assets import __version__
from rm_assets.cli import recipes, release, results, score, serve
from rm_assets.cli.json_output import print_json
from rm_assets.core.errors import RmAssetsError
from rm_assets.core.planning.guidance import SERVICE_GUIDANCE
from rm_assets.core.records import SPLITS
from rm_assets.storage.home import find_home

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reward-model development as a graph of versioned assets.",
)
app.add_typer(recipes.app, name="recipes")
app.add_typer(release.app, name="release")
LOG_LEVELS = ("debug", "info", "warning", "error")


@app.callback()
def common(
    context: typer.Context, log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info"
) -> None:
    """Options of all commands."""
    if log_level.lower() not in LOG_LEVELS:
        raise typer.BadParameter(f"'{log_level}' is none of {', '.join(LOG_LEVELS)}", param_hint="--log-level")
    context.obj = log_level.upper()


@app.command()
def run(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="Name of the recipe, as `rm-assets recipes list` shows it.")],
    select: Annotated[
        str,
        typer.Option(
            help="Assets to make, in Dagster's selection syntax, for example `*implicit_pairs`: it and all before it."
        ),
    ] = "*",
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A few prompts and ten steps: shows that every part works.")
    ] = False,
) -> None:
    """Make what is out of date of a recipe: prompts to released reward model."""
    from rm_assets.cli.run import build

    if not build(recipe, select=select, smoke=smoke, log_level=context.obj):
        raise typer.Exit(1)


@app.command()
def show(
    asset: Annotated[str, typer.Argument(help="One of the seven assets.")],
    recipe: Annotated[str, typer.Option(help="Name of the recipe.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: report.json for evaluation_report, else manifest and path.")
    ] = False,
) -> None:
    """What a recipe's asset holds, as it is now."""
    found = results.find(recipe, asset)
    if as_json:
        print_json(found.as_json())
    else:
        found.print(Console())


@app.command()
def stats(
    recipe: Annotated[str, typer.Argument(help="Name of the recipe.")],
    asset: Annotated[
        str | None, typer.Argument(help="prompts, sampled_responses, gold_rewards or implicit_pairs; all without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the stats.json of each, as a list.")] = False,
) -> None:
    """Lengths, rewards, margins, ties, duplicates and outliers of a recipe's data, by split and by source."""
    from rm_assets.cli.stats import print_statistics, read_statistics

    found = read_statistics(recipe, asset)
    if as_json:
        print_json(found)
    else:
        for each in found:
            print_statistics(each, Console())


@app.command()
def outdated(
    recipe: Annotated[
        list[str] | None, typer.Argument(help="Names of recipes; all that are in use without one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """Which recipes are out of date, since what changed, and what making them takes. Makes nothing."""
    from rm_assets.cli.outdated import find, show

    found = find(recipe or [])
    if as_json:
        print_json(found)
    else:
        show(found, Console(highlight=False))


@app.command()
def prune(
    older_than: Annotated[int, typer.Option(min=1, metavar="DAYS", help="Younger results stay.")] = 30,
    gone_recipes: Annotated[
        bool, typer.Option("--gone-recipes", help="Also what recipes made that are not here any more.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this it is only shown.")] = False,
) -> None:
    """What of the store no recipe and no release needs any more; removes it with --apply."""
    from rm_assets.cli import prune as pruning

    pruning.prune(older_than, gone_recipes=gone_recipes, apply=apply, console=Console(highlight=False))


@app.command()
def machines(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete those whose process on this machine has ended.")
    ] = False,
    in_use: Annotated[
        bool, typer.Option("--in-use", help="With --delete: also those that may be in use, here or by others.")
    ] = False,
) -> None:
    """Machines that recipes had made for tasks and that are still there; deletes what is left over with --delete."""
    from rm_assets.cli import machines as sweeping

    if in_use and not delete:
        raise typer.BadParameter("belongs to --delete", param_hint="--in-use")
    sweeping.machines(remove=delete, in_use=in_use, console=Console(highlight=False))


@app.command()
def rank(
    what: Annotated[
        str,
        typer.Argument(metavar="RECIPE|FILE", help="A recipe whose gold is human, or a file of prompts and answers."),
    ],
    annotator: Annotated[
        str | None, typer.Option(help="Whose rankings these are; of several people each gives a name.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only train, validation or test prompts of a recipe.")] = None,
    skipped: Annotated[bool, typer.Option("--skipped", help="Ask again what was skipped.")] = False,
    prompt_field: Annotated[
        str | None, typer.Option(help="Column with the prompt in FILE; `prompt` if not given.")
    ] = None,
    response_field: Annotated[
        list[str] | None, typer.Option(help="Column with an answer in FILE, may be repeated; `response` if not given.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the rankings of FILE are kept; FILE.rankings.jsonl if not given.")
    ] = None,
    as_csv: Annotated[
        Path | None,
        typer.Option("--csv", help="Ask nothing; write what is ranked as prompt, answer, rank (1 is best)."),
    ] = None,
) -> None:
    """Rank answers by hand, best to worst, with ties: the gold rewards of a recipe with `gold.kind: human`."""
    from rm_assets.cli import rank as ranker

    if annotator is not None and not (annotator.strip() and annotator.isprintable()):
        raise typer.BadParameter("is no name", param_hint="--annotator")
    if split not in (None, *SPLITS):
        raise typer.BadParameter(f"'{split}' is none of {', '.join(SPLITS)}", param_hint="--split")
    if as_csv is not None and (annotator is not None or skipped):
        raise typer.BadParameter("asks nothing, and writes the rankings of all annotators", param_hint="--csv")
    console = Console(highlight=False)
    if ranker.is_file(what):
        if split:
            raise typer.BadParameter("belongs to a recipe, and a file is ranked", param_hint="--split")
        work = ranker.work_of_file(Path(what), prompt_field or "prompt", response_field or ["response"], output)
    else:
        if prompt_field or response_field or output:
            raise typer.BadParameter(
                f"--prompt-field, --response-field and --output belong to a file; '{what}' is none"
            )
        console.print(f"store: {find_home()}", soft_wrap=True)
        work = ranker.work_of_recipe(what, split)
    if as_csv is not None:
        console.print(f"{ranker.export_csv(work, as_csv)} rows written to {as_csv}", soft_wrap=True)
    else:
        ranker.Session(work, annotator, ask_skipped=skipped, console=console).run()


@app.command()
def trace(
    pair: Annotated[str | None, typer.Option(help="Id of a pair.")] = None,
    response: Annotated[str | None, typer.Option(help="Id of a response.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Id of a prompt.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Name of the recipe, as it is made now.")] = None,
    release: Annotated[Path | None, typer.Option(help="Folder of a release, in place of a recipe.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a pair, response or prompt was made from: texts, seeds, gold, models with their revisions, versions and runs."""
    if sum(given is not None for given in (pair, response, prompt)) != 1:
        raise typer.BadParameter("give one of --pair, --response and --prompt")
    if (recipe is None) == (release is None):
        raise typer.BadParameter("give one of --recipe and --release")
    from rm_assets.cli import trace as tracer

    found = tracer.trace(tracer.assets_of(recipe, release), pair=pair, response=response, prompt=prompt)
    if as_json:
        print_json(found.as_json())
    else:
        found.print(Console())


@app.command()
def plan(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of the recipe; without one, only steps are computed.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Training pairs, in place of a recipe.")] = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="Prompts of reinforcement learning.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pairs or prompts of one optimizer step; 64 when not given.")
    ] = None,
    reward_epochs: Annotated[float | None, typer.Option(help="Passes over the pairs.")] = None,
    rl_epochs: Annotated[float | None, typer.Option(help="Passes over the prompts.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Model of the tuning service, for its guidance: {', '.join(SERVICE_GUIDANCE)}.")
    ] = None,
    model_config: Annotated[
        Path | None, typer.Option(help="config.json of the recipe's base, where its shape is not known here.")
    ] = None,
    seconds_per_step: Annotated[
        float | None, typer.Option(help="Measured seconds of one optimizer step, for time and cost; needs --device.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure ten optimizer steps on this machine first; the pairs must be made.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Device that was or is measured, as in the price list; `local` for --probe.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What a recipe takes before it runs: steps, tokens, operations, memory; with a measured step also time and cost."""
    from rm_assets.cli import plan as planner

    numbers = {
        "--pairs": pairs, "--prompts": prompts, "--batch-size": batch_size, "--reward-epochs": reward_epochs,
        "--rl-epochs": rl_epochs, "--model": model,
    }  # fmt: skip
    measured = {
        "--model-config": model_config, "--seconds-per-step": seconds_per_step, "--device": device,
        "--probe": probe or None,
    }  # fmt: skip
    if recipe is None:
        planner.refuse(measured, "belongs to a recipe, and none is named")
        question = planner.StepQuestion(pairs, prompts, batch_size or 64, reward_epochs, rl_epochs, model)
        planner.print_steps(question, as_json=as_json)
        return
    planner.refuse(numbers, f"cannot be given beside the recipe '{recipe}', which has these numbers itself")
    if probe:
        planner.refuse({"--seconds-per-step": seconds_per_step}, "is what --probe measures")
        planner.print_probed_plan(recipe, device or "local", model_config=model_config, as_json=as_json)
    else:
        given = planner.probe_of(seconds_per_step, device)
        planner.print_recipe_plan(recipe, model_config=model_config, probe=given, as_json=as_json)


ON = typer.Option("--on", metavar="RECIPE", help="The recipe whose test responses and gold rewards decide.")
MODELS = typer.Argument(
    metavar="MODEL...",
    help="Recipes, RECIPE@production, checkpoint or release folders, OWNER/NAME or OWNER/NAME@REVISION on the Hub.",
)
MAX_LENGTH = typer.Option(
    min=2, help="Longest text in tokens for a model that does not say so itself; without it the recipe's."
)


@app.command()
def evaluate(
    models: Annotated[list[str], MODELS],
    on: Annotated[str, ON],
    reward_bench: Annotated[str | None, typer.Option(metavar="FILE|hub", help="Rows of RewardBench, too.")] = None,
    reward_bench_2: Annotated[str | None, typer.Option(metavar="FILE|hub", help="Rows of RewardBench 2, too.")] = None,
    max_length: Annotated[int | None, MAX_LENGTH] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each model's whole report.")] = False,
) -> None:
    """How far any reward models agree with a recipe's gold, each with a diagnosis in words. Makes no asset; rewards are kept."""
    from rm_assets.cli import judge

    given = {"reward_bench": reward_bench, "reward_bench_2": reward_bench_2}
    benchmarks = {kind: where for kind, where in given.items() if where is not None}
    judge.evaluate(models, on, benchmarks=benchmarks, max_length=max_length, as_json=as_json)


@app.command()
def compare(
    models: Annotated[list[str], MODELS],
    on: Annotated[str, ON],
    max_length: Annotated[int | None, MAX_LENGTH] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table as CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the match rates as a PNG.")] = None,
) -> None:
    """Which of several reward models is best on the same test pairs, if any is; of a recipe with seeds also their ensembles."""
    if as_json and as_markdown:
        raise typer.BadParameter("give one of --json and --markdown")
    from rm_assets.cli import judge

    judge.compare(
        models, on, max_length=max_length, as_json=as_json, as_markdown=as_markdown, csv_file=csv_file, plot=plot
    )


@app.command()
def search(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="Name of a recipe with a section search.")],
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Trials in all, in place of search.num_trials; those that are there count."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite RECIPE-best.yaml though the search did not write it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Better settings of the training, by many trainings judged on validation pairs; the best become a recipe file."""
    from rm_assets.cli import search as searching

    if not searching.search(recipe, trials, force=force, as_json=as_json, log_level=context.obj):
        raise typer.Exit(1)


app.command()(score.score)
app.command()(score.compare_responses)
app.command()(score.interactive)
app.command()(serve.serve)


@app.command()
def monitor(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Recipes or beginnings of digests; what is alive or new without them."),
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Every training of the store.")] = False,
    follow: Annotated[
        bool | None,
        typer.Option("--follow/--once", help="Until Ctrl-C, or once; without either until no training runs any more."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the runs with all steps as JSON.")] = False,
    as_csv: Annotated[Path | None, typer.Option("--csv", help="Write one row for each step to this file.")] = None,
) -> None:
    """Trainings side by side, while they run and after: loss, accuracy, margin, speed, memory, time left."""
    if runs and all_runs:
        raise typer.BadParameter("names no run, and runs are named", param_hint="--all")
    if as_json and as_csv is not None:
        raise typer.BadParameter("give one of --json and --csv")
    from rm_assets.cli import monitor as monitoring
    from rm_assets.storage.store import Store

    store, console = Store(find_home()), Console(highlight=False)
    found = monitoring.select(store, runs or [], all_runs=all_runs)
    if as_csv is not None:
        console.print(f"{monitoring.write_csv(found, as_csv)} rows written to {as_csv}", soft_wrap=True)
    elif as_json:
        monitoring.print_runs(found)
    elif found or follow:
        look = partial(monitoring.select, store, runs or [], all_runs=all_runs)
        monitoring.watch(look, follow=follow, console=console)
    else:
        console.print(f"no training has begun (store: {store.home})", soft_wrap=True)


@app.command()
def health(
    recipe: Annotated[
        str | None, typer.Argument(help="Only what this recipe needs: its models, sources, servers and packages, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Whether installation, machine, credentials, network and recipes are fit for work; exit status 1 if something is not."""
    from rm_assets.cli import health as checkup

    if not checkup.report(recipe, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """The version of rm_assets."""
    print(__version__)


def main() -> None:
    """Entry point: errors that a user can mend are one message and exit status 1, not a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # not under nohup
            signal.signal(number, _interrupt)
    try:
        app(standalone_mode=True)
    except RmAssetsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """What Ctrl-C does here: a run that is ended ends its work elsewhere, and deletes the machines that it has made."""
    by_ctrl_c = signal.getsignal(signal.SIGINT)
    (by_ctrl_c if callable(by_ctrl_c) else signal.default_int_handler)(number, frame)


if __name__ == "__main__":
    main()
