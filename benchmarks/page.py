"""docs/benchmarks.md, made from the results: `python -m benchmarks.page`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import results

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
INTRODUCTION = """# Benchmarks

<!-- Made by `python -m benchmarks.page` from benchmarks/results*.jsonl. Change that module, not this file. -->

The product against its peers: `make bench`, with the folder of real texts in `RM_ASSETS_REAL_DATA`. Each subject is a
process of its own; they take turns in one run, with the same data, weights, dtype and threads. A round is one optimizer
step, one pass over the conversations, or one pass over the prompts. The figure is how many times as much the peer
takes: the median over rounds (n), by process-CPU time on a CPU, by wall time on a GPU. Memory is a process's peak beyond
its imports. A comparison in which product and peer do not compute the same thing fails, and is not written. A run of some
comparisons (`--only`) replaces their lines alone; each line in the results carries its own date and versions.

## What is measured
| workload | prompt, tokens | response, tokens | responses a prompt | pairs a prompt |
|---|---|---|---|---|
| alpacafarm-like | 30 to 120 | 30 to 400 | 2 | 1 |
| multi-turn | 100 to 800 | 20 to 150 | 2 | 1 |
| best-of-8 | 100 to 500 | 50 to 200 | 8 | 1 |
| real-alpaca | AlpacaEval prompts | answers of 2 of 16 models | 2 | 1 |
| real-hh | common beginning of two HH-RLHF dialogues | what differs | 2 | 1 |
| real-alpaca-k4-all-pairs | AlpacaEval prompts | answers of 4 of 16 models | 4 | 6 |

The first three are synthetic and frozen: log-normal lengths with these 5th and 95th percentiles, at most 1,024 tokens.
The real ones take only their lengths from the texts; a token is a piece of a regular expression, since no tokenizer of a
released model ships with the project (`benchmarks/real_lengths.py`). The tokens themselves are random. One pair of
best-of-8 takes two of the eight responses, which is what `pairs.policy: best_worst` trains on.

- **train**: one optimizer step of 64 pairs, from its first forward pass until AdamW has stepped, from a fresh trainer of
  the same weights. Loading, and gathering the step's batches, are in neither side's time. Peers: TRL's RewardTrainer as it
  comes (16 pairs a batch, checkpointing), and tuned (2 pairs a batch, none). The product: `TorchTrainer`, its defaults.
- **score**: conversations to rewards, template and tokenizer included, `TorchScorer` against batches of 32 rows in the
  order given, padded to the longest, SDPA.
- **sample**: 2 responses to each prompt, of at most 256 tokens, tokenizer and text included, `TorchSampler` against
  `generate` on batches of 32 prompts. The weights are random, but the end token has about one chance in a hundred at
  every token, so lengths are about exponential. Both draw from the unfiltered distribution.
- **counted**: tokens that the peer computes (padding, repeated prompts, rows that wait for the longest; with checkpointing
  times 4/3, as it computes forward twice) over distinct tokens. It is the limit of what sharing and packing can give at
  the peer's speed per token. "Reached" is the measured figure over it. It can be above 100 percent: attention over long
  padded rows costs more than in proportion, and the product computes the last layer at the rewards only.
"""
COLUMNS = "| name | ratio | by CPU time | by wall time | n | counted | reached | product | peer | memory, product | memory, peer |"


def render(files: list[tuple[str, list[dict[str, Any]]]]) -> str:
    """The whole page, a section for each file that holds results."""
    parts = [INTRODUCTION]
    measured = [lines for _, lines in files if lines]
    for lines in measured:
        parts += ["\n".join(_section(lines))]
    if not measured:
        parts += ["## Results\nNone yet: run `make bench`.\n"]
    return "\n".join(parts)


def _section(lines: list[dict[str, Any]]) -> Iterator[str]:
    first = lines[0]
    yield f"## Results on {'the CPU' if first['device'] == 'cpu' else first['device']}"
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    yield f"{first['machine']}, {first['threads']} threads; {versions}; {first['date']}."
    for model in dict.fromkeys(line["model"] for line in lines):
        of_model = [line for line in lines if line["model"] == model]
        yield f"\nModel {_model(model)}, {of_model[0]['dtype']}:\n"
        yield COLUMNS
        yield "|---" * COLUMNS.count(" | ") + "|---|"
        yield from map(_row, of_model)
        yield "\n| name | product against | equal to the peer |\n|---|---|---|"
        yield from (f"| {line['name']} | {line['baseline']} | {line['equal_to']} |" for line in of_model)
    yield ""


def _row(line: dict[str, Any]) -> str:
    kind = "cpu" if line["device"] == "cpu" else "wall"
    unit = line["unit"].removeprefix("seconds ")
    ours, theirs = line[f"product_{kind}_seconds"], line[f"peer_{kind}_seconds"]
    cells = [
        line["name"], f"**{line['ratio']:.2f}x**", f"{line['ratio_cpu']:.2f}x", f"{line['ratio_wall']:.2f}x",
        str(line["n"]), f"{line['counted']:.2f}x", f"{line['ratio'] / line['counted']:.0%}",
        f"{_seconds(ours)} {unit}", _seconds(theirs),
        f"{line['product_peak_mb']:,.0f} MB", f"{line['peer_peak_mb']:,.0f} MB",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.2f} ms" if value < 0.1 else f"{value:.2f} s"


def _model(name: str) -> str:
    return "small (Qwen3 with 6 layers of width 256)" if name == "small" else f"{name} (its shape, random weights)"


def records_section(lines: list[dict[str, Any]]) -> str:
    """The table of `python -m benchmarks.records`."""
    first = lines[0]
    rows = [
        f"| {line['stage']} | {line['wall_seconds']:,.0f} | {first['num_responses'] / line['wall_seconds']:,.0f} | {line['peak_above_baseline_mb']:,.0f} MB |"
        for line in lines
    ]
    total = sum(line["wall_seconds"] for line in lines)
    return "\n".join(
        [
            f"""## Recorded responses
{first["num_responses"]:,} recorded responses ({first["prompts"]:,} prompts, four each, one row a response, those of a prompt
far apart in the file) from JSON lines to checked pairs, near-duplicate grouping off: `python -m benchmarks.records`. A stage is a task
process of its own; memory is its peak beyond its imports. The machine did other work at the same time, so the rates are
lower bounds. {first["machine"]}; python {first["python"]}, pyarrow
{first["pyarrow"]}; {first["date"]}.

| stage | seconds | responses a second | memory |
|---|---:|---:|---:|""",
            *rows,
            f"| all | {total:,.0f} | {first['num_responses'] / total:,.0f} | |",
            "",
        ]
    )


def serving_section(lines: list[dict[str, Any]]) -> str:
    """The table of `python -m benchmarks.serving`."""
    first = lines[0]
    rows = [
        f"| {line['load']} | **{line['ratio']:.2f}x** | {line['lowest_ratio']:.2f} to {line['highest_ratio']:.2f} | {line['n']} | {line['requests_in_a_pass']:.1f} | "
        f"{line['on_requests_per_second']:.1f} / {line['off_requests_per_second']:.1f} | "
        + " | ".join(f"{line[f'on_p{p}_ms']:,.0f} / {line[f'off_p{p}_ms']:,.0f} ms" for p in (50, 95, 99))
        + f" | {line['largest_difference']:.1e} |"
        for line in lines
    ]
    return "\n".join(
        [
            f"""## Serving
`rm-assets serve` under the same concurrent load with batching across requests on and off: `python -m benchmarks.serving`.
{first["num_clients"]} clients, {first["num_requests"]} requests of one to four responses a round, each client asking its next when it has its answer. The two
services take turns in one run, so the ratio of their throughput is the figure; other work ran on the machine, and the
seconds are of that day. Own prompts: every request has its own of 30 to 120 tokens, responses have 30 to 400. Shared prompts: four of
200 to 500 tokens, responses of 20 to 100. Short texts: own prompts of 5 to 30 tokens, responses of 3 to 30. On a CPU a long text
keeps the cores busy by itself, so batching pays where texts are short or prompts shared. Model {_model("small")}, float32,
{first["threads"]} threads; {first["machine"]}; torch {first["versions"]["torch"]}; {first["date"]}.

| load | throughput, on over off | lowest and highest round | n | requests in a forward pass | requests a second, on / off | median latency | 95th percentile | 99th percentile | largest difference from RewardModel |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|""",
            *rows,
            "",
        ]
    )


def jax_section(lines: list[dict[str, Any]]) -> str:
    """The table of `python -m benchmarks.jax_backend`."""
    first = lines[0]
    rows = [
        f"| {line['name']} | **{line['ratio_cpu']:.2f}** | {line['ratio_wall']:.2f} | {line['n']} | {line['unit']} | "
        f"{line['jax_cpu_seconds']:.2f} / {line['torch_cpu_seconds']:.2f} s | {line['jax_wall_seconds']:.2f} / {line['torch_wall_seconds']:.2f} s | "
        f"{line['num_compilations']} | {line['compile_seconds']:.1f} s | {line['largest_difference']:.1e} |"
        for line in lines
    ]
    return "\n".join(
        [
            f"""## JAX against torch on a CPU
`backend: jax` against `backend: torch`, each a process of its own, in turns: `python -m benchmarks.jax_backend`. The figure is how
many times as much JAX takes: the median over rounds (n), without compiling. A step is the second one of a fresh trainer, gathering of its
batches included. Compilations are those of the forward and backward pass (training) or of the forward pass (scoring), one for
each shape of rows that occurred; their seconds are wall time of all that JAX compiled in the process. JAX computes rows
padded to a power of two from 256 tokens on, and attention over the half of a row that may be seen; it is meant for TPUs, where **it has never run**, and it
has never run on a GPU either. Losses and scores are equal within
the last column. Model {_model("small")}, float32, {first["threads"]} threads for torch, XLA's own for JAX; {first["machine"]}, shared;
jax {first["jax"]}, torch {first["versions"]["torch"]}; {first["date"]}.

| name | JAX over torch, CPU time | wall time | n | unit | CPU time, JAX / torch | wall time, JAX / torch | compilations | compiling | largest difference |
|---|---:|---:|---:|---|---:|---:|---:|---:|---:|""",
            *rows,
            "",
        ]
    )


def current() -> str:
    """The page for the results that are there."""
    others = sorted(results.FOLDER.glob("results-*.jsonl"))
    page = render([(file.name, results.read(file)) for file in (results.CPU_FILE, *others)])
    records = results.read(results.FOLDER / "records-results.jsonl")
    served = results.read(results.FOLDER / "serving-results.jsonl")
    with_jax = results.read(results.FOLDER / "jax-results.jsonl")
    page += "\n" + records_section(records) if records else ""
    page += "\n" + serving_section(served) if served else ""
    return page + ("\n" + jax_section(with_jax) if with_jax else "")


def write() -> None:
    """Replaces the page."""
    temporary = PAGE.with_name(f".{PAGE.name}")
    temporary.write_text(current(), "utf-8")
    temporary.rename(PAGE)


if __name__ == "__main__":
    write()
