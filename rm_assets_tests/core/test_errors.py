"""The error catalogue: every code documented, every error able to cross a process border."""

import copy
import re
from pathlib import Path

import pytest

from rm_assets.core.errors import ERROR_CODES, DataError, ModelError, RecipeError, RmAssetsError

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_page_documents_exactly_the_catalogued_codes_in_order() -> None:
    rows = re.findall(r"^\| `([A-Z]+_\d{3})` \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert [code for code, _, _ in rows] == list(ERROR_CODES)
    assert {code: meaning for code, meaning, _ in rows} == ERROR_CODES
    assert all(len(remedy) > 20 for _, _, remedy in rows)


def test_message_says_what_why_and_how_to_mend_it() -> None:
    error = DataError("DATA_001", "a.csv does not exist.", why="it was moved", fix="correct the path")
    assert str(error) == "[DATA_001] a.csv does not exist.\n  Why: it was moved.\n  Fix: correct the path."
    assert str(ModelError("MODEL_003", "no template")) == "[MODEL_003] no template."


@pytest.mark.parametrize("code", ERROR_CODES)
def test_error_crosses_a_process_border_and_keeps_its_class(code: str) -> None:
    family = next(c for c in RmAssetsError.__subclasses__() if code.startswith(c.family))
    error = family(code, "what", why="why", fix="fix")
    for back in (RmAssetsError.from_dict(error.to_dict()), copy.copy(error)):  # as pickle does
        assert type(back) is family
        assert back.to_dict() == {"code": code, "what": "what", "why": "why", "fix": "fix"}


@pytest.mark.parametrize("code", ["DATA_001", "RECIPE_999", ""])
def test_class_takes_only_catalogued_codes_of_its_own_family(code: str) -> None:
    with pytest.raises(KeyError):
        RecipeError(code, "what")
