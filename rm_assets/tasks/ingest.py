"""prompts: reads prompt rows from their source, normalises and deduplicates them, gives ids, assigns splits."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from rm_assets.core.errors import DataError
from rm_assets.core.prompts import assign_splits, deduplicate, mix, opening
from rm_assets.core.recipe import MixtureSource, PromptSource, PromptsSection
from rm_assets.core.records import SPLITS, Prompt
from rm_assets.storage.tables import write_table
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.prompt_rows import prompt_rows
from rm_assets.tasks.session import Product, Task, run_task


class _Rows:
    """Reads the prompts of a source and counts the rows that became none."""

    def __init__(self, section: PromptsSection) -> None:
        self._section = section
        self.account: Counter[str] = Counter(
            rows=0, duplicates_dropped=0, dialogues_part_early=0, left_out_of_mixture=0
        )

    def prompts(self, source: PromptSource) -> list[Prompt]:
        """The distinct prompts of a source, without their split."""
        most = self._section.max_prompts
        if not isinstance(source, MixtureSource):
            return self._distinct(source, most)
        parts = [self._distinct(part.source, part.max_prompts, part.name) for part in source.parts]
        weights = [part.weight for part in source.parts if part.weight is not None]
        mixed, num_left_out = mix(parts, weights or None, most)
        self.account["left_out_of_mixture"] += num_left_out
        self.account["duplicates_dropped"] += sum(map(len, parts)) - len(mixed) - num_left_out
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
    prompts = rows.prompts(section.source)
    num_leaked = 0
    if section.test is None:
        prompts = assign_splits(prompts, section.split, section.split_seed)
    else:
        test = rows.prompts(section.test)
        held_out = {opening(p) for p in test}
        kept = [p for p in prompts if opening(p) not in held_out]
        num_leaked = len(prompts) - len(kept)
        prompts = assign_splits(kept, section.split, section.split_seed) + [replace(p, split="test") for p in test]
    by_split = Counter(p.split for p in prompts)
    for split in SPLITS:
        if not by_split[split] and (split != "validation" or section.split.validation > 0):
            raise DataError(
                "DATA_004",
                f"the {split} split has no prompts ({len(prompts)} prompts in all)",
                fix="raise its share in prompts.split, or bring more prompts",
            )
    write_table(task.folder / "prompts.parquet", Prompt, prompts)
    return Product(
        files=["prompts.parquet"],
        counts={
            "prompts": len(prompts),
            **{f"{s}_prompts": by_split[s] for s in SPLITS},
            "overlap_with_test": num_leaked,
            **rows.account,
        },
        work={"rows read": rows.account["rows"]},
        facts={"prompts_by_source": dict(Counter(p.source for p in prompts).most_common(20))},
        examples=[
            {"split": p.split, "source": p.source, "prompt": excerpt(p.prompt), "reference": excerpt(p.reference or "")}
            for p in prompts[:8]
        ],
        columns=columns_of(Prompt),
    )


if __name__ == "__main__":
    run_task(ingest)
