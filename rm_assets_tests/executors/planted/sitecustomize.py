"""Read by each Python with this folder on its PYTHONPATH: its `ingest.py` stands in for the task `ingest`, and nobody waits for long."""

from pathlib import Path

import rm_assets.tasks
from rm_assets.tasks import saved_work

saved_work.SECONDS_BETWEEN_LOOKS = 0.3
rm_assets.tasks.__path__.insert(0, str(Path(__file__).parent))
