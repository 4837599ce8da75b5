"""Releases, what `production` and `staging` name, and what was refused: one log that is only added to.

HOME/registry/log.jsonl     one event a line, oldest first; everything else follows from it
HOME/registry/log.lock      lease: one process at a time looks what is there and adds to it

On an object store, where nothing can be added to a file, each change is a numbered file of its own (see remote.py): whoever
writes a number first has it, and another machine decides again on what is there then.

A line is the releases of one recipe. Events: `built` (a release), `pushed` (to the Hub), `moved` (an alias), `refused`.
"""

import getpass
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from rm_assets.core.errors import ReleaseError
from rm_assets.storage.files import write_lines
from rm_assets.storage.store import Store

ALIASES = ("production", "staging")
Event = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Release:
    """One built release. `hub` is {"repo", "tag", "commit"} once it is pushed."""

    name: str
    line: str
    digest: str
    report: str
    """Digest of its evaluation_report."""
    form: str
    match_rate: dict[str, Any]
    at: str
    hub: dict[str, str] | None = None


@dataclass(frozen=True)
class Move:
    """What an alias named before and names now."""

    alias: str
    line: str
    before: str | None
    now: str
    who: str
    why: str
    at: str


def release_name(line: str, digest: str) -> str:
    """The name of a release: its recipe and the beginning of its digest."""
    return f"{line}-{digest[:12]}"


def _alone(change: Callable[Concatenate["Registry", P], T]) -> Callable[Concatenate["Registry", P], T]:
    """Nobody else adds to the log meanwhile; where another machine did, the change is decided again."""

    @wraps(change)
    def decide(registry: "Registry", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with registry._store.lease("registry", "log"):
            while True:
                registry._look(now=True)
                try:
                    return change(registry, *args, **kwargs)
                except FileExistsError:
                    continue

    return decide


class Registry:
    """The releases of one store. Raises: of a cache, StoreError as storage.remote.Remote."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._file = store.home / "registry" / "log.jsonl"
        self._look()

    def events(self, *kinds: str) -> Iterator[Event]:
        """Events of these kinds, oldest first."""
        return (event for event in map(json.loads, self._lines()) if event["event"] in kinds)

    def releases(self) -> list[Release]:
        """All releases, newest first."""
        hubs = {event["name"]: event["hub"] for event in self.events("pushed")}
        found = [{key: value for key, value in event.items() if key != "event"} for event in self.events("built")]
        return [Release(**event, hub=hubs.get(event["name"])) for event in reversed(found)]

    def aliases(self, line: str) -> dict[str, str]:
        """The release that each alias of a line names."""
        return {alias: stack[-1] for alias in ALIASES if (stack := self._stack(line, alias))}

    def find(self, name: str) -> Release:
        """A release by its name, by `LINE@production` or `LINE@staging`, or by the name of a line: its newest.

        Raises: ReleaseError RELEASE_007.
        """
        releases = self.releases()
        line, _, alias = name.rpartition("@")
        wanted = self.aliases(line).get(alias) if alias in ALIASES else name
        if found := next((r for r in releases if r.name == wanted), None):
            return found
        if found := next((r for r in releases if r.line == name), None):
            return found
        raise ReleaseError(
            "RELEASE_007",
            f"there is no release '{name}' in {self._store.home}",
            why=f"no release of '{line}' is in {alias}" if alias in ALIASES else "",
            fix="`rm-assets release list` shows the releases; `rm-assets run RECIPE` builds one",
        )

    def folder(self, release: Release) -> Path:
        """The files of a release, all there.

        Raises: ReleaseError RELEASE_008 if they are gone, StoreError STORE_003 if one is damaged.
        """
        if self._store.manifest("hub_release", release.digest) is None:
            raise ReleaseError(
                "RELEASE_008",
                f"the files of {release.name} are gone from {self._store.home}",
                fix="bring them back from the Hub or a backup, or choose another release",
            )
        return self._store.folder("hub_release", release.digest) / "release"

    def model(self, release: Release) -> Path:
        """The whole checkpoint that a release is of, in whatever form it is released itself. Raises: as `folder`."""
        self.folder(release)
        manifest = self._store.manifest("hub_release", release.digest)
        assert manifest is not None, "its files have just been found"
        return self._store.folder("reward_model", manifest.inputs["reward_model"]["digest"]) / "checkpoint"

    def add(self, release: Release) -> Move | None:
        """Registers a built release, and names it staging, both or neither; None if it is known already."""
        if release.hub:
            self.pushed(release, release.hub)
        return self._add(release)

    @_alone
    def _add(self, release: Release) -> Move | None:
        if any(r.name == release.name for r in self.releases()):
            return None
        built = {key: value for key, value in vars(release).items() if key != "hub"}
        return self._move(release, "staging", "promote", "built, and passed the gate", after=[_event("built", built)])

    @_alone
    def pushed(self, release: Release, hub: dict[str, str]) -> None:
        """Notes where a release lies on the Hub, once."""
        push = {"name": release.name, "hub": hub}
        if not any(push.items() <= event.items() for event in self.events("pushed")):
            self._append(_event("pushed", push))

    @_alone
    def move(self, release: Release, alias: str, *, why: str) -> Move | None:
        """Makes an alias name this release; None if it does already."""
        if self.aliases(release.line).get(alias) == release.name:
            return None
        return self._move(release, alias, "promote", why)

    def previous(self, line: str, alias: str = "production") -> Release:
        """What a rollback leads to: what the alias named before. What was rolled back is not come back to.

        Raises: ReleaseError RELEASE_008 if there is none.
        """
        stack = self._stack(line, alias)
        if len(stack) < 2:
            raise ReleaseError(
                "RELEASE_008",
                f"there is nothing to roll back to: {alias} of '{line}' names "
                + (f"its first release, {stack[0]}" if stack else "no release"),
                fix="`rm-assets release list` shows what there is to promote",
            )
        return self.find(stack[-2])

    @_alone
    def roll_back(self, line: str, alias: str = "production", *, why: str) -> Move:
        """Makes an alias name what it named before. Raises: as `previous` and `folder`."""
        before = self.previous(line, alias)
        self.folder(before)
        return self._move(before, alias, "rollback", why)

    @_alone
    def refuse(self, line: str, report: str, check: str, why: str) -> None:
        """Notes what was refused and why, once for each report and reason."""
        refusal = {"line": line, "report": report, "check": check, "why": why}
        if not any(refusal.items() <= event.items() for event in self.events("refused")):
            self._append(_event("refused", refusal))

    def _stack(self, line: str, alias: str) -> list[str]:
        """The releases that an alias named, but for those that were rolled back; the last is the present one."""
        stack: list[str] = []
        for event in self.events("moved"):
            if (event["line"], event["alias"]) == (line, alias):
                stack = stack[:-1] if event["how"] == "rollback" else [*stack, event["now"]]
        return stack

    def _move(self, release: Release, alias: str, how: str, why: str, after: Sequence[Event] = ()) -> Move:
        line, before, who = release.line, self.aliases(release.line).get(alias), _user()
        moved = {
            "line": line,
            "alias": alias,
            "before": before,
            "now": release.name,
            "how": how,
            "who": who,
            "why": why,
        }
        event = _event("moved", moved)
        self._append(*after, event)
        return Move(alias, line, before, release.name, who, why, at=event["at"])

    def _append(self, *events: Event) -> None:
        """All of them or none. Whoever calls is alone. Raises: FileExistsError if another machine was not known to have added."""
        lines = [json.dumps(event, ensure_ascii=False) for event in events]
        if self._store.remote:
            number = int(Path(self._changes[-1]).stem) + 1 if self._changes else 1
            name = f"{number:08d}.jsonl"
            self._store.remote.create(f"registry/{name}", "".join(f"{line}\n" for line in lines))
            self._changes.append(name)
        else:
            write_lines(self._file, [*self._lines(), *lines])

    def _look(self, *, now: bool = False) -> None:
        """What there is of changes on an object store."""
        self._changes = sorted(self._store.remote.names("registry", now=now)) if self._store.remote else []

    def _lines(self) -> list[str]:
        remote = self._store.remote
        files = [remote.read(f"registry/{name}") for name in self._changes] if remote else [self._file]
        text = "".join(file.read_text("utf-8") for file in files if file.is_file())
        return [line for line in text.split("\n") if line]  # a reason may hold what else ends a line in Unicode


def _event(kind: str, event: Event) -> Event:
    return {"event": kind, "at": datetime.now(UTC).isoformat(timespec="seconds"), **event}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number without a name
        return str(os.getuid())
