"""The miniature task of the `embedded` recipe, its policy checkpoint and the script that makes the policy."""
