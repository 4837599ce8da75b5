"""The `rm-assets` command."""
