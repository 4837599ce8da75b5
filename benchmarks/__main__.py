"""`python -m benchmarks`: measures every comparison, writes the results and docs/benchmarks.md.

With an NVIDIA GPU it measures there, with the shapes of released models, in bfloat16.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import page, real_lengths, results, suite, workloads
from benchmarks.checkpoints import SHAPES, SMALL
from rm_assets.core.planning.model_shape import shape_from_config

GPU_ROWS, GPU_PROMPTS = 512, 256
BYTES_PER_WEIGHT = 16
"""Weight, gradient and two moments in float32."""
ROOM_FOR_ACTIVATIONS = 16 * 2**30
QUIET_LOAD = 0.5


def main() -> None:
    """Runs what the command line asks for; ends with status 1 if product and peer are not equal."""
    options = _options()
    names = suite.selected(options.only)
    if not names:
        sys.exit(f"no comparison is called {options.only!r}; there are: {', '.join(suite.ALL_NAMES)}")
    if any(real in name for name in names for real in workloads.REAL) and not real_lengths.is_there():
        sys.exit(
            f"set {real_lengths.ENV} to the folder of real data, or choose others with --only (see docs/benchmarks.md)"
        )
    if os.getloadavg()[0] > QUIET_LOAD:
        print(
            f"warning: load average {os.getloadavg()[0]:.1f}. Threads that wait for a busy core spin, so CPU times of "
            "several threads mean little now; wait, or try --threads 1"
        )
    lines, began = [], time.monotonic()
    for run in _suites(options):
        try:
            for line in run.lines(options.only):
                lines.append({**line, **results.circumstances()})
                print(_summary(lines[-1], time.monotonic() - began), flush=True)
                if not options.pairs:
                    results.add(results.file_of(lines[-1]["device"]), lines[-1], suite.ALL_NAMES)
        except suite.NotEqualError as error:
            sys.exit(f"NOT EQUAL: {error}. It is not written.")
    if options.json:
        print("\n".join(json.dumps(results.rounded(line)) for line in lines))
    if options.pairs:
        print("not written: smaller steps than those of the comparison")
        return
    page.write()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", default="*", help="a name, a part of one, or a pattern with *; replaces only their lines"
    )
    parser.add_argument("--rounds", type=int, help="how often product and peers take turns; 2 for training, else 3")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each subject")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pairs", type=int, help="smaller steps, to try things out; prints, writes nothing")
    parser.add_argument("--json", action="store_true", help="print the lines too")
    return parser.parse_args()


def _suites(options: argparse.Namespace) -> Iterator[suite.Suite]:
    """One for each model; on a GPU, each that fits."""
    for shape in (SMALL,) if options.device == "cpu" else [name for name in SHAPES if name != SMALL]:
        if options.device == "cuda":
            needed = BYTES_PER_WEIGHT * shape_from_config(SHAPES[shape]).num_parameters + ROOM_FOR_ACTIVATIONS
            if needed > torch.cuda.mem_get_info()[1]:
                print(f"{shape} is left out: training it takes about {needed / 2**30:.0f} GiB")
                continue
        on_cpu = options.device == "cpu"
        with tempfile.TemporaryDirectory() as folder:
            yield suite.Suite(
                shape=shape, device=options.device, dtype="float32" if on_cpu else "bfloat16",
                num_threads=options.threads, rounds=options.rounds, folder=Path(folder),
                num_pairs=options.pairs or workloads.PAIRS_PER_STEP,
                num_rows=2 * options.pairs if options.pairs else workloads.SCORED_ROWS if on_cpu else GPU_ROWS,
                num_prompts=options.pairs or (64 if on_cpu else GPU_PROMPTS),
            )  # fmt: skip


def _summary(line: suite.Line, seconds: float) -> str:
    return (
        f"{seconds:5.0f} s  {line['name']:44} {line['ratio']:5.2f}x (cpu {line['ratio_cpu']:.2f}, "
        f"wall {line['ratio_wall']:.2f}, counted {line['counted']:.2f})  "
        f"{line['product_peak_mb']:,.0f} MB against {line['peer_peak_mb']:,.0f} MB; equal: {line['equal_to']}"
    )


if __name__ == "__main__":
    main()
