"""What `rm-assets stats` prints, 80 characters wide."""

from io import StringIO

from rich.console import Console

from rm_assets.cli.stats import print_statistics
from rm_assets.core.records import GoldReward, Pair, conversation
from rm_assets.core.table_statistics.describe import describe
from rm_assets.core.table_statistics.numbers import gather


def printed(asset: str, rows: list[GoldReward] | list[Pair]) -> str:
    out = StringIO()
    print_statistics(describe(gather(asset, rows)), Console(file=out, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= 80 and "…" not in out.getvalue()
    return out.getvalue()


def test_gold_rewards_of_many_sources_are_whole_at_80_columns() -> None:
    rows = [
        GoldReward(
            prompt_id=f"p{n}", prompt="q", system=None, reference=None, source=f"a-rather-long/source-{n % 7}", split="train", external_id=None,
            row=n, response_id=f"{n:032x}", sample_index=k, response="x" * (n * 37 % 12345), model="m", seed=None, num_tokens=n, finished=True,
            gold_reward=n / 7 if n else -123456.789,
        )
        for n in range(400) for k in range(2)
    ]  # fmt: skip
    text = printed("gold_rewards", rows)
    assert f"  response {0:032x}  -123457  " in text
    assert text.count("source-6") == 1 and "tie rate by mean gold" in text
    assert text.count("all rows") == 2  # beside the splits and the sources


def test_pairs_are_whole_at_80_columns() -> None:
    def pair(n: int) -> Pair:
        chosen, rejected = conversation("q", None, "x" * (n * 7919)), conversation("q", None, "x" * (n * 3331 % 90000))
        return Pair(pair_id=f"{n}", prompt_id=f"{n}", source="s", split=("train", "validation", "test")[n % 3], chosen=chosen,
                    rejected=rejected, chosen_id="c", rejected_id="r", chosen_gold_reward=n / 7, rejected_gold_reward=0.0, gold_margin=n / 7)  # fmt: skip

    assert "chosen longer by margin" in printed("implicit_pairs", [pair(n) for n in range(1, 60)])
