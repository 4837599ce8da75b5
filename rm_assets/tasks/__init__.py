"""Process entry points: `python -m rm_assets.tasks.<name> REQUEST.json` reads inputs, calls a backend or the core, writes the result."""
