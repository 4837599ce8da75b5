"""Training and scoring in plain JAX, for TPUs: the same checkpoint folders in and out, the same rewards."""
