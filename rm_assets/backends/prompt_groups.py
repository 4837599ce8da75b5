"""Conversations that begin alike, computed together: what is shared, what that costs, and how a token budget cuts it."""

from collections.abc import Callable, Iterator, Sequence

from rm_assets.backends.rendering import Encoded


def common_prefix(rows: Sequence[list[int]]) -> int:
    """Tokens that all rows begin with; at least one token of each row is left out of it, and a single row has none."""
    if len(rows) < 2:
        return 0
    # The first and the last in order differ earliest, so only these two have to be compared.
    first, last = min(rows), max(rows)
    longest = min(len(row) for row in rows) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return min(same, longest)


def num_shared_tokens(rows: Sequence[Encoded]) -> int:
    """Tokens that are computed for these rows when what all of them begin with is computed once."""
    return sum(len(row.ids) for row in rows) - (len(rows) - 1) * common_prefix([row.ids for row in rows])


def parts_of_prompts(
    prompts: Sequence[str], rows: Sequence[Encoded], num_tokens: Callable[[Sequence[Encoded]], int], token_budget: int
) -> list[list[int]]:
    """Places of rows with the same prompt, in as many parts as the token budget asks for; a longer row stands alone."""
    of_prompt: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        of_prompt.setdefault(prompt, []).append(index)
    return [part for members in of_prompt.values() for part in _within_budget(members, rows, num_tokens, token_budget)]


def _within_budget(
    members: list[int], rows: Sequence[Encoded], num_tokens: Callable[[Sequence[Encoded]], int], token_budget: int
) -> Iterator[list[int]]:
    if num_tokens([rows[i] for i in members]) <= token_budget:
        yield members
        return
    part: list[int] = []
    for index in members:
        if part and num_tokens([rows[i] for i in [*part, index]]) > token_budget:
            yield part
            part = []
        part.append(index)
    yield part
