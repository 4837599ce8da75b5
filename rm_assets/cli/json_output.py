"""What a command prints with `--json`."""

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """Indented, in the characters that it has."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    print()
