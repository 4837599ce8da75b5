"""Read by each Python with this folder on its PYTHONPATH: its `ingest.py` stands in for the task `ingest`."""

from pathlib import Path

import rm_assets.tasks

rm_assets.tasks.__path__.insert(0, str(Path(__file__).parent))
