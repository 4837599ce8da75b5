"""The logic of the checks: what an asset holds in, a finding out. Severity and limit are the recipe's (core/recipe/checks.py)."""
