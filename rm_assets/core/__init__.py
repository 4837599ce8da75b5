"""Pure logic: recipes, records, digests, pairing, statistics, checks and errors. Nothing here touches a model or Dagster."""
