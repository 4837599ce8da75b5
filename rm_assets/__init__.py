"""rm_assets: the development of a reward model as a graph of versioned assets."""

__version__ = "0.1.0"
