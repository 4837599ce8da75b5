"""Sampling and scoring by workers on a Ray cluster, each with a model of its own. Ray itself is imported inside functions."""
