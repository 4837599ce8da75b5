"""What a recipe takes before it runs: counts, tokens, operations, memory, cost."""
