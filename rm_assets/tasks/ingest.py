"""prompts: reads prompt rows from their source, normalises and deduplicates them, gives ids, assigns splits."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from rm_assets.core.digests import prompt_id
from rm_assets.core.errors import DataError
from rm_assets.core.prompts import assign_splits, deduplicate, normalise
from rm_assets.core.recipe import GeneratorSource, PromptsSection
from rm_assets.core.records import SPLITS, Prompt
from rm_assets.storage.sources import SourceRow, read_rows
from rm_assets.storage.tables import write_table
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.session import Product, Task, run_task


def read_prompts(section: PromptsSection, source: object) -> Iterator[Prompt]:
    """The prompts of one source as they are; the split is assigned later."""
    rows = _generated(source) if isinstance(source, GeneratorSource) else read_rows(source)  # type: ignore[arg-type]
    generated = isinstance(source, GeneratorSource)
    for index, row in enumerate(rows):
        text = row.text("prompt" if generated else section.prompt_field)
        system = row.optional_text(section.system_field) if section.system_field else section.system
        yield Prompt(
            prompt_id=prompt_id(text, system),
            prompt=text,
            system=system,
            reference=row.optional_text("reference" if generated else section.reference_field),
            source=(row.optional_text(section.source_field) if not generated else "embedded") or "all",
            split="",
            external_id=None if generated else row.optional_text(section.id_field),
            row=index,
        )


def _generated(source: GeneratorSource) -> Iterator[SourceRow]:
    from rm_assets.embedded.task import generate_prompts

    for prompt, reference in generate_prompts(source.num_prompts, source.seed):
        yield SourceRow("generator", {"prompt": prompt, "reference": reference})


def ingest(task: Task) -> Product:
    """Reads, deduplicates and splits; every row read is kept or counted with its reason."""
    section = task.recipe.prompts
    train, dropped = deduplicate(read_prompts(section, section.source), section.max_prompts)
    if section.test is None:
        prompts = assign_splits(train, section.split, section.split_seed)
        num_leaked = 0
    else:
        test, dropped_test = deduplicate(read_prompts(section, section.test), section.max_prompts)
        held_out = {normalise(p.prompt) for p in test}
        kept = [p for p in train if normalise(p.prompt) not in held_out]
        num_leaked = len(train) - len(kept)
        dropped += dropped_test
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
            "duplicates_dropped": dropped,
            "overlap_with_test": num_leaked,
        },
        work={"prompts read": len(prompts) + dropped + num_leaked},
        facts={"prompts_by_source": dict(Counter(p.source for p in prompts).most_common(20))},
        examples=[
            {"split": p.split, "source": p.source, "prompt": excerpt(p.prompt), "reference": excerpt(p.reference or "")}
            for p in prompts[:8]
        ],
        columns=columns_of(Prompt),
    )


if __name__ == "__main__":
    run_task(ingest)
