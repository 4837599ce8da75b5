"""Tokens of a forward pass, halved once where the device has no memory for them."""

import gc
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from rm_assets.core.protocols import Reporter

NO_MEMORY = re.compile(r"[Oo]ut of memory|can't allocate memory|RESOURCE_EXHAUSTED")
"""The words of PyTorch for Apple's GPUs and for a CPU, and of XLA, which have no exception of their own."""
VALIDATION_BUDGET = "validation_token_budget"
T = TypeVar("T")


class TokenBudget:
    """The tokens that a forward pass may have; `name` tells manifests which one."""

    def __init__(self, tokens: int, reporter: Reporter, name: str = "token_budget") -> None:
        self.tokens, self._reporter, self._name = tokens, reporter, name
        self._is_halved = False

    @property
    def facts(self) -> dict[str, int]:
        """What a manifest says of it: nothing, unless it was halved."""
        return {f"{self._name}_halved_to": self.tokens} if self._is_halved else {}

    def spend(self, work: Callable[[int], T]) -> T:
        """What `work` gives with these tokens; where the device has no memory left, with half of them, once and for all.

        `work` is called a second time then, and has to go on from what it has.
        Raises: what `work` raises, a second lack of memory among it.
        """
        try:
            return work(self.tokens)
        except RuntimeError as error:
            if self._is_halved or self.tokens == 1 or not is_out_of_memory(error):
                raise
            said = str(error).splitlines()[0]
        # Only here, since the error holds the frames, and they the tensors, until its block is left.
        self.tokens, self._is_halved = self.tokens // 2, True
        release_cached()
        self._reporter.log(
            f"the {self._name.replace('_', ' ')} is halved to {self.tokens:,}, since the device has no memory left: {said}"
        )
        return work(self.tokens)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it is a device that has no memory left."""
    return type(error).__name__ == "OutOfMemoryError" or bool(NO_MEMORY.search(str(error)))


def release_cached() -> None:
    """Gives back what nothing holds any more, where PyTorch keeps it."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
