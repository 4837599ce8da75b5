"""The PyTorch backend: transformers checkpoints, a sampler, a scorer and a trainer on TRL."""
