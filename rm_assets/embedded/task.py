"""The miniature task: copy an order into a list and add up its total.

    prompt     Mia orders 3 pens, 2 cups and 4 hats. Write the list and the total.
    reference  pens: 3
               cups: 2
               hats: 4
               #### 9

The task space is cut in two by a digest of the prompt: the policy is pre-trained on one half, recipes
draw their prompts from the other, so no recipe prompt was ever seen in pre-training. Standard library only.

    python -m rm_assets.embedded.task        # prints a few prompts and pre-training examples
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

NAMES = ("Tom", "Mia", "Ana", "Leo", "Sam", "Eva", "Max", "Zoe", "Ben", "Ida", "Kim", "Ray")
VERBS = ("orders", "buys", "needs", "packs")
ITEMS = (
    "apples", "books", "coins", "pens", "cards", "eggs", "hats", "cups",
    "keys", "maps", "nuts", "rings", "shirts", "socks", "boxes", "lamps",
    "plates", "spoons", "bells", "ropes", "drums", "kites", "masks", "tiles",
)  # fmt: skip

#: What a checker may say about a response: right, or the kind of a fault.
RIGHT = "right"
FAULTS = ("item", "number", "missing", "extra", "low", "high", "format")

# How the corpus errs. Totals get the largest share: adding up is the one step that copying does not solve.
_FAULT_WEIGHTS = {"total": 5.0, "item": 2.0, "number": 2.5, "missing": 1.5, "extra": 1.5, "format": 1.0}
_NUM_FAULTS_WEIGHTS = {"demonstration": (50, 34, 12, 4), "check": (38, 42, 15, 5)}
_DEMONSTRATION_SHARE = 0.6


@dataclass(frozen=True)
class Order:
    """What somebody wants: 2 to 4 different items, 1 to 9 of each."""

    name: str
    verb: str
    lines: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """The sum of all counts."""
        return sum(count for _, count in self.lines)

    @property
    def prompt(self) -> str:
        """The order as a request in one paragraph."""
        parts = [f"{count} {item}" for item, count in self.lines]
        return f"{self.name} {self.verb} {', '.join(parts[:-1])} and {parts[-1]}. Write the list and the total."


@dataclass(frozen=True)
class Draft:
    """A response before it is written out, with the faults put into it so far."""

    order: Order
    lines: tuple[tuple[str, int], ...]
    total: int
    line_template: str = "{item}: {count}"
    preface: str = ""
    total_template: str = "#### {total}"
    faults: tuple[str, ...] = ()

    def render(self) -> str:
        """The response text."""
        body = [self.line_template.format(item=item, count=count) for item, count in self.lines]
        preface = [self.preface] if self.preface else []
        return "\n".join([*preface, *body, self.total_template.format(total=self.total)])


@dataclass(frozen=True)
class PretrainingExample:
    """A prompt with a right or faulty response; `faults` is empty when it is right.

    A demonstration is learnt as an answer and checked; the others are only checked.
    """

    prompt: str
    response: str
    faults: tuple[str, ...]
    is_demonstration: bool


def generate_prompts(num_prompts: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield `num_prompts` distinct (prompt, reference) of the recipe half, the same ones for the same seed."""
    if num_prompts < 0:
        raise ValueError(f"num_prompts is {num_prompts}; a number of prompts cannot be negative, use 0 or more")
    rng = random.Random(f"recipe prompts {seed}")
    seen: set[str] = set()
    while len(seen) < num_prompts:
        order = draw_order(rng)
        if order.prompt in seen or not is_recipe_prompt(order.prompt):
            continue
        seen.add(order.prompt)
        yield order.prompt, reference_of(order)


def pretraining_examples(seed: int) -> Iterator[PretrainingExample]:
    """Yield examples of the pre-training half without end: responses as a corpus with mistakes has them."""
    rng = random.Random(f"pre-training examples {seed}")
    while True:
        order = draw_order(rng)
        if is_recipe_prompt(order.prompt):
            continue
        is_demonstration = rng.random() < _DEMONSTRATION_SHARE
        weights = _NUM_FAULTS_WEIGHTS["demonstration" if is_demonstration else "check"]
        draft = corrupt(order, rng.choices(range(len(weights)), weights)[0], rng)
        yield PretrainingExample(order.prompt, draft.render(), draft.faults, is_demonstration)


def is_recipe_prompt(prompt: str) -> bool:
    """Whether the prompt belongs to the half of the task space that recipes use."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 2 == 0


def draw_order(rng: random.Random) -> Order:
    """A random order."""
    items = rng.sample(ITEMS, rng.randint(2, 4))
    return Order(rng.choice(NAMES), rng.choice(VERBS), tuple((item, rng.randint(1, 9)) for item in items))


def reference_of(order: Order) -> str:
    """The right response."""
    return Draft(order, order.lines, order.total).render()


def corrupt(order: Order, num_faults: int, rng: random.Random) -> Draft:
    """The right response with `num_faults` faults of different kinds put into it.

    Raises: ValueError if there are not so many kinds.
    """
    kinds = dict(_FAULT_WEIGHTS)
    if num_faults > len(kinds):
        raise ValueError(f"num_faults is {num_faults}; a response takes {len(kinds)} at most, one of each kind")
    chosen: set[str] = set()
    for _ in range(num_faults):
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        del kinds[kind]
        chosen.add(kind)
    draft = Draft(order, order.lines, order.total)
    for kind, corruption in _CORRUPTIONS.items():
        if kind in chosen:
            draft = corruption(draft, rng)
    return draft


def _wrong_item(draft: Draft, rng: random.Random) -> Draft:
    index = rng.randrange(len(draft.lines))
    line = (_unlisted_item(draft, rng), draft.lines[index][1])
    return replace(draft, lines=_with_line(draft, index, line), faults=(*draft.faults, "item"))


def _wrong_number(draft: Draft, rng: random.Random) -> Draft:
    index = rng.randrange(len(draft.lines))
    item, count = draft.lines[index]
    other = rng.choice([number for number in range(1, 10) if number != count])
    return replace(draft, lines=_with_line(draft, index, (item, other)), faults=(*draft.faults, "number"))


def _missing_line(draft: Draft, rng: random.Random) -> Draft:
    index = rng.randrange(len(draft.lines))
    lines = draft.lines[:index] + draft.lines[index + 1 :]
    return replace(draft, lines=lines, faults=(*draft.faults, "missing"))


def _extra_line(draft: Draft, rng: random.Random) -> Draft:
    index = rng.randint(0, len(draft.lines))
    line = (_unlisted_item(draft, rng), rng.randint(1, 9))
    return replace(draft, lines=(*draft.lines[:index], line, *draft.lines[index:]), faults=(*draft.faults, "extra"))


def _wrong_total(draft: Draft, rng: random.Random) -> Draft:
    offset = rng.choice([-3, -2, -1, 1, 2, 3])
    if draft.total + offset < 1:
        offset = -offset
    return replace(draft, total=draft.total + offset, faults=(*draft.faults, "low" if offset < 0 else "high"))


def _broken_format(draft: Draft, rng: random.Random) -> Draft:
    faulty = replace(draft, faults=(*draft.faults, "format"))
    match rng.randrange(4):
        case 0:
            return replace(faulty, line_template="- {item}: {count}")
        case 1:
            return replace(faulty, line_template="{count} {item}")
        case 2:
            return replace(faulty, preface="Here is the list:")
        case _:
            return replace(faulty, total_template="total {total}")


def _unlisted_item(draft: Draft, rng: random.Random) -> str:
    listed = {item for item, _ in (*draft.order.lines, *draft.lines)}
    return rng.choice([item for item in ITEMS if item not in listed])


def _with_line(draft: Draft, index: int, line: tuple[str, int]) -> tuple[tuple[str, int], ...]:
    return (*draft.lines[:index], line, *draft.lines[index + 1 :])


# A missing line comes first: taken away later it could take another fault with it.
_CORRUPTIONS: dict[str, Callable[[Draft, random.Random], Draft]] = {
    "missing": _missing_line,
    "item": _wrong_item,
    "number": _wrong_number,
    "extra": _extra_line,
    "total": _wrong_total,
    "format": _broken_format,
}


if __name__ == "__main__":
    for prompt, reference in generate_prompts(2, seed=0):
        print(f"{prompt}\n{reference}\n")
    for example in islice(pretraining_examples(seed=0), 4):
        print(f"{example.prompt}\n{example.response}\n-> {', '.join(example.faults) or RIGHT}\n")
