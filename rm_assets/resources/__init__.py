"""What assets are handed: the recipes, and compute, which makes an asset or finds it made."""
