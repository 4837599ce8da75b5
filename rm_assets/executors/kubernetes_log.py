"""The log of a pod whose stream may break: opened again, it gives what was not seen, and that once."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)[.\d]*(Z|[+-]\d\d:\d\d) (.*)", re.S)


class LogPosition:
    """How far a log with time stamps has been read. The API opens a log again at a whole second, so that one comes twice."""

    def __init__(self) -> None:
        self.since: str | None = None
        self._of_second: Counter[str] = Counter()

    def unseen(self, chunks: Iterable[bytes], is_whole: bool) -> Iterator[str]:
        """The lines of a log from `since` on that have not been given, without their stamps and line ends.

        A last line that has no end counts only if the log `is_whole`: else it may be cut.
        """
        again = self._of_second.copy()
        for line in _lines(chunks, is_whole):
            if again[line] > 0:
                again[line] -= 1
                continue
            stamped = STAMPED.fullmatch(line)
            if stamped and (second := stamped[1] + stamped[2]) > (self.since or ""):
                self.since = second
                self._of_second.clear()
            self._of_second[line] += 1
            yield stamped[3] if stamped else line


def _lines(chunks: Iterable[bytes], with_last: bool) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)
    if rest and with_last:
        yield rest.decode("utf-8", "replace")
