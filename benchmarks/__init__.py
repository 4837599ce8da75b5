"""The product against its peers: `make bench`, or `python -m benchmarks --help`."""

import os

# For product and peers alike: threads that wait by spinning count as work, and take the cores from those at work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
