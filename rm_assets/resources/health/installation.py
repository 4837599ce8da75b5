"""Python and packages: what pyproject demands, what was tested, what is installed."""

import platform
import re
import tomllib
from collections.abc import Iterator, Set
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from rm_assets import __version__
from rm_assets.core.errors import SetupError
from rm_assets.core.health import Condition, faulty, sound

CHECKOUT = Path(__file__).parents[3]
"""Where pyproject.toml and constraints.txt lie if this is a checkout. Newer than what an old install remembers of them."""
KNOWN_BREAKS = {"wandb": "`import dagster_wandb` fails with wandb 0.30 and newer (dagster issue 34198)"}
"""Why a bound is what it is, where leaving it looks harmless."""
SHOWN = 6


def python() -> Condition:
    """This Python against the one that the package demands."""
    here, demanded = platform.python_version(), _demanded_python()
    if SpecifierSet(demanded).contains(here, prereleases=True):
        return sound("python", f"Python {here}, rm_assets {__version__}")
    error = SetupError(
        "SETUP_001", f"this is Python {here}, and rm_assets needs {demanded}",
        fix="make an environment with a newer Python: `make install` in a checkout",
    )  # fmt: skip
    return faulty("python", error)


def packages(constraints: Path = CHECKOUT / "constraints.txt") -> Iterator[Condition]:
    """What is installed against what is demanded, by us and by what we demand; then against the tested versions."""
    ours = [each for each in _demands() if _applies(each)]
    faults = [fault for each in ours if (fault := _fault(each, "rm_assets"))]
    for each in ours:
        faults += [fault for inner in _demands_of(each.name) if (fault := _fault(inner, each.name))]
    for error in faults:
        yield faulty("packages", error)
    if not faults:
        yield sound("packages", f"{len(ours)} packages are there, in versions that fit together")
    if constraints.is_file():
        yield _tested(ours, constraints)


def extras(needed: Set[str]) -> Iterator[Condition]:
    """The optional dependencies that a recipe's sources are read with."""
    for extra in sorted(needed):
        inside = [each for each in _demands() if _applies(each, extra) and not _applies(each)]
        missing = [each.name for each in inside if _fault(each, "rm_assets")]
        if missing:
            error = SetupError(
                "SETUP_002", f"{', '.join(missing)} is missing or too old",
                why="the recipe's sources are read with it", fix=f"pip install 'rm-assets[{extra}]'",
            )  # fmt: skip
            yield faulty(f"extra {extra}", error)
        else:
            yield sound(f"extra {extra}", ", ".join(f"{each.name} {_installed(each.name)}" for each in inside))


def _project() -> dict[str, Any] | None:
    """The table `project` of pyproject.toml, if this is a checkout."""
    pyproject = CHECKOUT / "pyproject.toml"
    table = tomllib.loads(pyproject.read_text("utf-8")).get("project", {}) if pyproject.is_file() else {}
    return table if table.get("name") == "rm-assets" else None


def _demanded_python() -> str:
    if (project := _project()) is not None:
        return str(project["requires-python"])
    return metadata.metadata("rm-assets")["Requires-Python"]


def _demands() -> list[Requirement]:
    """What rm_assets demands; optional dependencies have their extra as marker."""
    if (project := _project()) is None:
        return [Requirement(line) for line in metadata.requires("rm-assets") or []]
    optional = project.get("optional-dependencies", {}).items()
    return [Requirement(line) for line in project["dependencies"]] + [
        Requirement(f"{line}; extra == '{extra}'") for extra, lines in optional for line in lines
    ]


def _demands_of(name: str) -> list[Requirement]:
    """What an installed package demands itself, without its extras."""
    found = [Requirement(line) for line in metadata.requires(name) or []] if _installed(name) else []
    return [each for each in found if _applies(each)]


def _applies(demand: Requirement, extra: str = "") -> bool:
    """Whether it counts on this system with this Python, and with this extra."""
    return demand.marker is None or demand.marker.evaluate({"extra": extra})


def _fault(demand: Requirement, by: str) -> SetupError | None:
    """What is wrong with the package that is demanded."""
    installed = _installed(demand.name)
    if installed is not None and demand.specifier.contains(installed, prereleases=True):
        return None
    demanded = f"{demand.name}{demand.specifier}"
    return SetupError(
        "SETUP_002",
        f"{demand.name} is not installed" if installed is None else f"{demand.name} {installed} does not fit",
        why=f"{by} needs {demanded}"
        + (f": {KNOWN_BREAKS[demand.name]}" if demand.name in KNOWN_BREAKS and installed is not None else ""),
        fix=f"pip install '{demanded}'",
    )


def _tested(ours: list[Requirement], constraints: Path) -> Condition:
    """Our packages against the versions that the tests ran with."""
    lines = re.findall(r"^([\w.-]+)==(\S+)$", constraints.read_text("utf-8"), re.MULTILINE)
    tested = {canonicalize_name(name): version for name, version in lines}
    others = [
        f"{each.name} {installed} (tested {tested[name]})"
        for each in ours
        if (name := canonicalize_name(each.name)) in tested
        and (installed := _installed(each.name)) is not None
        and installed.partition("+")[0] != tested[name]  # torch names its build behind a plus
    ]
    if not others:
        return sound("tested versions", "all as in constraints.txt")
    error = SetupError(
        "SETUP_003",
        "not the tested versions: " + ", ".join(others[:SHOWN]) + (" and others" if len(others) > SHOWN else ""),
        why="they fit what is demanded, and nobody has run the tests with them",
        fix=f"pip install -c {constraints} -e {constraints.parent}, or go on and watch out",
    )
    return faulty("tested versions", error, "warning")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
