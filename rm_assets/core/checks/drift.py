"""Drift and outliers: checks that compare an asset with its version before, or a row with the rest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rm_assets.core.checks.finding import DataCheck, EarlierTable, Finding
from rm_assets.core.errors import StoreError
from rm_assets.core.table_statistics.numbers import TableNumbers, gather
from rm_assets.core.table_statistics.outliers import outliers

NUM_BINS = 10
"""Besides one for what lies below all older values and one for what lies above."""
SMOOTHING = 0.5
"""Added to the count of every bin, so that an empty one has a logarithm."""
CHANCE = 0.001
"""How often two samples of one distribution may exceed the bound of chance."""
DRIFTING: dict[str, dict[str, str]] = {
    "prompts": {"prompt_chars": "prompt lengths in characters", "prompt_words": "prompt lengths in words"},
    "sampled_responses": {
        "response_chars": "response lengths in characters",
        "response_words": "response lengths in words",
        "response_tokens": "response lengths in tokens",
    },
    "gold_rewards": {"gold_reward": "gold rewards"},
    "implicit_pairs": {"gold_margin": "gold margins", "length_difference": "length differences of the pairs"},
}
"""The features of an asset that are compared; an asset's rows repeat those of the asset before it, which compares them."""


@dataclass(frozen=True)
class Drift:
    """How far a feature moved: stability index and Kolmogorov-Smirnov statistic, each with what chance hardly exceeds.

    The rows of a prompt depend on each other, so that the bounds by chance count prompts.
    """

    feature: str
    words: str
    change: str
    stability_index: float
    by_chance: float
    ks: float | None = None
    ks_by_chance: float = 0.0

    def measures(self, limit: float, ks_limit: float) -> list[tuple[str, float, float]]:
        """Name, value and what it may reach at these limits."""
        index = ("PSI", self.stability_index, max(limit, self.by_chance))
        return [index] if self.ks is None else [index, ("KS", self.ks, max(ks_limit, self.ks_by_chance))]


def stability_index(older: Sequence[float], newer: Sequence[float]) -> tuple[float, float]:
    """Population stability index of two lists of counts by bin, and its bound by chance; 0 where they are equal.

    Sum over bins of (p - q) ln(p / q), where p and q are the shares with half a count added to each bin; bins that are
    empty in both do not count. Of samples of one distribution, index / (1/N + 1/M) is distributed about as chi squared with
    one degree of freedom less than there are bins: small samples have a large index by chance alone.
    Sources: Siddiqi (2006), "Credit Risk Scorecards" (0.25 and more is a significant shift); Yurdakul and Naranjo (2020),
    "Statistical properties of the population stability index", Journal of Risk Model Validation 14.
    """
    from scipy.stats import chi2

    counts = np.array([older, newer], dtype=float)  # (2, bins)
    counts = counts[:, counts.sum(axis=0) > 0]
    totals = counts.sum(axis=1, keepdims=True)
    q, p = (counts + SMOOTHING) / (totals + SMOOTHING * counts.shape[1])
    bound = float(chi2.ppf(1 - CHANCE, counts.shape[1] - 1) * (1 / totals).sum()) if counts.shape[1] > 1 else 0.0
    return float(((p - q) * np.log(p / q)).sum()), bound


def _of_numbers(name: str, older: TableNumbers, newer: TableNumbers) -> Drift:
    """Bins hold a tenth of the older values each; beyond either end of them there is one more."""
    from scipy.stats import ks_2samp, kstwobign

    before, now = older.known(name), newer.known(name)
    num_prompts = [min(table.num_prompts, len(table.known(name))) for table in (older, newer)]
    tenths = np.quantile(before, np.linspace(0, 1, NUM_BINS + 1))
    edges = np.unique([np.nextafter(tenths[0], -np.inf), *tenths[1:]])
    shares = [
        np.bincount(np.searchsorted(edges, v, side="left"), minlength=len(edges) + 1) / len(v) for v in (before, now)
    ]
    index, by_chance = stability_index(*((of * n).tolist() for of, n in zip(shares, num_prompts, strict=True)))
    of, middle = ("median", np.median) if np.median(before) != np.median(now) else ("mean", np.mean)
    return Drift(
        feature=name,
        words=f"{DRIFTING[newer.asset][name]} are distributed",
        change=f"{of} {middle(before):.4g} then, {middle(now):.4g} now",
        stability_index=index,
        by_chance=by_chance,
        ks=float(ks_2samp(before, now, method="asymp").statistic),
        ks_by_chance=float(kstwobign.ppf(1 - CHANCE) * np.sqrt(sum(1 / n for n in num_prompts))),
    )


def _of_sources(older: TableNumbers, newer: TableNumbers) -> Drift:
    """The shares of the sources as bins; the change is that of the source whose share moved most."""
    names = list(dict.fromkeys([*older.sources, *newer.sources]))
    counts = []
    for table in (older, newer):
        of = np.bincount(table.source, minlength=len(table.sources))
        counts.append([int(of[table.sources.index(name)]) if name in table.sources else 0 for name in names])
    index, by_chance = stability_index(*counts)
    before, now = (np.array(of) / sum(of) for of in counts)
    moved = int(np.argmax(np.abs(now - before)))
    change = f"{names[moved]} {before[moved]:.1%} then, {now[moved]:.1%} now"
    return Drift("source", "sources are mixed", change, index, by_chance)


def drifts(older: TableNumbers, newer: TableNumbers) -> list[Drift]:
    """Every compared feature that both versions have, largest index first."""
    both = [name for name in DRIFTING[newer.asset] if len(older.known(name)) and len(newer.known(name))]
    found = [_of_numbers(name, older, newer) for name in both]
    if newer.asset == "prompts":
        found.append(_of_sources(older, newer))
    return sorted(found, key=lambda drift: -drift.stability_index)


def no_drift(asset: str, rows: Iterable[Any], earlier: EarlierTable | None, limit: float, ks_limit: float) -> Finding:
    """Passes if no feature has a stability index above `limit` or a Kolmogorov-Smirnov statistic above `ks_limit` that chance
    does not explain, or there is no earlier version to compare with.
    """
    if earlier is None:
        return Finding(True, "there is no earlier version", looked=False)
    try:
        older = gather(asset, earlier.rows)
    except StoreError as error:
        return Finding(True, f"cannot be compared with the version before: {error.what}", looked=False)
    newer = gather(asset, rows)
    before = f"before (made {earlier.made_at[:16].replace('T', ' ')}, {len(older.group)} rows)"
    found = drifts(older, newer)
    moved: list[str] = []
    still: list[str] = []
    for drift in found:
        measures = drift.measures(limit, ks_limit)
        above = [measure for measure in measures if measure[1] > measure[2]]
        said = [f"{name} {value:.3g}, limit {bound:.3g}" for name, value, bound in above or measures]
        how = "otherwise than" if above else "as"
        (moved if above else still).append(f"{drift.words} {how} {before}: {'; '.join((drift.change, *said))}")
    numbers = {f"data/psi_{drift.feature}": drift.stability_index for drift in found}
    numbers |= {f"data/ks_{drift.feature}": drift.ks for drift in found if drift.ks is not None}
    return Finding(not moved, " | ".join(moved or still[:1]) or f"nothing to compare with {before}", numbers)


def few_outliers(asset: str, rows: Iterable[Any], limit: float) -> Finding:
    """Passes if at most a share `limit` of the rows is outside the usual range of the asset's watched feature."""
    found = outliers(gather(asset, rows))
    share = found.num_outside / found.n if found.n else 0.0
    listed = "; ".join(
        f"{row.id} {row.value:g} {row.excerpt[:40]!r}" for row in (*found.highest[:2], *found.lowest[:2])
    )
    return Finding(
        share <= limit,
        f"{found.num_outside} of {found.n} ({share:.2%}) have {found.feature} outside of the usual {found.usual_from:.4g} to "
        f"{found.usual_to:.4g}" + (f", the most extreme: {listed}" if listed else ""),
        {f"data/num_outlying_{found.feature}": found.num_outside, f"data/share_outlying_{found.feature}": share},
    )


DRIFT_CHECKS: dict[str, DataCheck] = {
    "prompts_have_not_drifted": DataCheck("prompts", ("prompts", "earlier prompts"), partial(no_drift, "prompts")),
    "prompt_lengths_are_usual": DataCheck("prompts", ("prompts",), partial(few_outliers, "prompts")),
    "responses_have_not_drifted": DataCheck(
        "sampled_responses", ("responses", "earlier responses"), partial(no_drift, "sampled_responses")
    ),
    "response_lengths_are_usual": DataCheck(
        "sampled_responses", ("responses",), partial(few_outliers, "sampled_responses")
    ),
    "rewards_have_not_drifted": DataCheck(
        "gold_rewards", ("rewards", "earlier rewards"), partial(no_drift, "gold_rewards")
    ),
    "rewards_are_usual": DataCheck("gold_rewards", ("rewards",), partial(few_outliers, "gold_rewards")),
    "pairs_have_not_drifted": DataCheck(
        "implicit_pairs", ("pairs", "earlier pairs"), partial(no_drift, "implicit_pairs")
    ),
}
"""By name, as DATA_CHECKS."""
