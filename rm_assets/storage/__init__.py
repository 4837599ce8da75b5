"""Where results lie: the store, its manifests and leases, Parquet tables, committed shards, fingerprints of sources."""
