"""The seven assets, one file each, in the order of the graph."""
