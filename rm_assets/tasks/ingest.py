"""prompts: reads prompt rows from their source, normalises and deduplicates them, gives ids, assigns splits."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rm_assets.core.errors import DataError
from rm_assets.core.near_duplicates import near_duplicate_groups
from rm_assets.core.prompts import (
    assign_splits,
    deduplicate,
    group_of,
    hash_of_test_set,
    mix,
    opening,
    word_runs,
)
from rm_assets.core.recipe import EvaluationSet, MixtureSource, NearDuplicates, PromptSource, PromptsSection
from rm_assets.core.records import SPLITS, Prompt
from rm_assets.storage.sources import read_rows
from rm_assets.storage.tables import read_table, write_table
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.prompt_rows import prompt_rows
from rm_assets.tasks.session import Product, Task, run_task


class _Rows:
    """Reads the prompts of a source and counts the rows that became none."""

    def __init__(self, section: PromptsSection) -> None:
        self._section = section
        self.account: Counter[str] = Counter(
            rows=0, duplicates_dropped=0, dialogues_part_early=0, left_out_of_mixture=0,
            overlap_with_test=0, near_duplicates_of_test=0, contaminated=0,
        )  # fmt: skip

    def prompts(self, source: PromptSource) -> list[Prompt]:
        """The distinct prompts of a source, without their split."""
        most = self._section.max_prompts
        if not isinstance(source, MixtureSource):
            return self._distinct(source, most)
        parts = {part.name: self._distinct(part.source, part.max_prompts, part.name) for part in source.parts}
        weights = {part.name: part.weight for part in source.parts if part.weight is not None}
        mixed, num_left_out = mix(parts, weights or None, most)
        self.account["left_out_of_mixture"] += num_left_out
        self.account["duplicates_dropped"] += sum(map(len, parts.values())) - len(mixed) - num_left_out
        return mixed

    def _distinct(self, source: PromptSource, most: int | None, name: str | None = None) -> list[Prompt]:
        kept, num_dropped = deduplicate(self._read(source, name), most)
        self.account["duplicates_dropped"] += num_dropped
        return kept

    def _read(self, source: PromptSource, name: str | None) -> Iterator[Prompt]:
        for _, prompt in prompt_rows(self._section, source, name):
            if prompt is None:
                self.account["dialogues_part_early"] += 1
            else:
                yield prompt
            # Counted when the next one is asked for, so the prompt at which `max_prompts` stops is not.
            self.account["rows"] += 1


def ingest(task: Task) -> Product:
    """Reads, deduplicates and splits; every row read is kept or counted with its reason."""
    section, rows = task.recipe.prompts, _Rows(task.recipe.prompts)
    pool = rows.prompts(section.source)
    test = [replace(p, split="test") for p in rows.prompts(section.test)] if section.test else []
    if section.test_set_hash not in (None, hash_of_test_set(test)):
        raise _other_test_set(task, test)
    groups, facts = _groups(section.near_duplicates, [*pool, *test])
    pool = _apart_from(test, pool, groups, rows.account)
    prompts = assign_splits(pool, section.split, section.split_seed, groups) + test
    prompts, by_set = _decontaminate(section.decontaminate, prompts, rows.account)
    by_split = Counter(p.split for p in prompts)
    for split in SPLITS:
        if not by_split[split] and (split != "validation" or section.split.validation > 0):
            raise DataError(
                "DATA_004",
                f"the {split} split has no prompts ({len(prompts)} prompts in all)",
                fix="raise its share in prompts.split, bring more prompts"
                + ("" if section.split.stratify else ", or set prompts.split.stratify (shares are held, not drawn)"),
            )
    write_table(task.folder / "prompts.parquet", Prompt, prompts)
    return Product(
        files=["prompts.parquet"],
        counts={
            "prompts": len(prompts),
            **{f"{s}_prompts": by_split[s] for s in SPLITS},
            **rows.account,
        },
        work={"rows read": rows.account["rows"]},
        facts={
            "prompts_by_source": dict(Counter(p.source for p in prompts).most_common(20)),
            "test_set_hash": hash_of_test_set(prompts),
            **facts,
            **by_set,
        },
        examples=[
            {"split": p.split, "source": p.source, "prompt": excerpt(p.prompt), "reference": excerpt(p.reference or "")}
            for p in prompts[:8]
        ],
        columns=columns_of(Prompt),
    )


def _groups(settings: NearDuplicates | None, prompts: list[Prompt]) -> tuple[dict[str, str], dict[str, Any]]:
    """The group of each opening that has near-duplicates, and how many groups and prompts these are."""
    if settings is None:
        return {}, {}
    groups = near_duplicate_groups(map(opening, prompts), settings)
    num_prompts = sum(opening(p) in groups for p in prompts)
    return groups, {"near_duplicate_groups": len(set(groups.values())), "near_duplicate_prompts": num_prompts}


def _apart_from(test: list[Prompt], pool: list[Prompt], groups: dict[str, str], account: Counter[str]) -> list[Prompt]:
    """The prompts of the pool that neither open like a test prompt nor belong to the group of one."""
    openings, held_out = {opening(p) for p in test}, {group_of(p, groups) for p in test}
    apart = [p for p in pool if group_of(p, groups) not in held_out]
    account["overlap_with_test"] = sum(opening(p) in openings for p in pool)
    account["near_duplicates_of_test"] = len(pool) - len(apart) - account["overlap_with_test"]
    return apart


def _decontaminate(
    sets: list[EvaluationSet], prompts: list[Prompt], account: Counter[str]
) -> tuple[list[Prompt], dict[str, Any]]:
    """Without the prompts for training and validation that share a run of words with a set, and how many each set has.

    A prompt that several sets have counts for each of them, and once in the account. Source: Brown et al. (2020, appendix C).
    """
    contaminated: set[str] = set()
    by_set: dict[str, int] = {}
    for named in sets:
        of_set = _runs_of(named)
        found = {
            p.prompt_id
            for p in prompts
            if p.split != "test" and not of_set.isdisjoint(word_runs(_whole_text(p), named.words))
        }
        by_set[named.name] = len(found)
        contaminated |= found
    account["contaminated"] = len(contaminated)
    kept = [p for p in prompts if p.prompt_id not in contaminated]
    return kept, {"contaminated_by_set": by_set} if sets else {}


def _whole_text(prompt: Prompt) -> str:
    return " ".join([turn["content"] for turn in prompt.history] + [prompt.prompt])


def _runs_of(named: EvaluationSet) -> set[int]:
    """The runs of words of all rows of an evaluation set. Raises: DataError, with the name of the set."""
    runs: set[int] = set()
    try:
        for row in read_rows(named.source):
            runs |= word_runs(row.text(named.field), named.words)
    except DataError as error:
        raise DataError(
            error.code, f"evaluation set '{named.name}': {error.what}", why=error.why, fix=error.fix
        ) from None
    if not runs:
        raise DataError(
            "DATA_012",
            f"evaluation set '{named.name}' has no rows",
            why="nothing could be contaminated by it, and that would look like a clean result",
            fix="correct its source in prompts.decontaminate, or remove it",
        )
    return runs


def _other_test_set(task: Task, test: list[Prompt]) -> DataError:
    """DATA_011, with what was added and removed where the store still has a prompts asset with the pinned set."""
    pinned, now = task.recipe.prompts.test_set_hash, {p.prompt_id: p.reference for p in test}
    known = next((m for m in task.store.manifests("prompts") if m.facts.get("test_set_hash") == pinned), None)
    why = f"there are {len(now)} test prompts, and no result in this store has the pinned ones to compare with"
    if known is not None:
        table = read_table(task.store.folder("prompts", known.digest) / "prompts.parquet", Prompt)
        before = {p.prompt_id: p.reference for p in table if p.split == "test"}
        num_other = sum(before[identity] != now[identity] for identity in before.keys() & now.keys())
        why = (
            f"{len(now.keys() - before.keys())} prompts were added, {len(before.keys() - now.keys())} removed, and "
            f"{num_other} have another reference"
        )
    return DataError(
        "DATA_011",
        f"prompts.test has the hash {hash_of_test_set(test)}, and the recipe pins {pinned}",
        why=why,
        fix="bring back the test prompts; or, if the change is wanted, put the new hash into prompts.test_set_hash: "
        "figures on these test prompts do not compare with those on the former ones",
    )


if __name__ == "__main__":
    run_task(ingest)
