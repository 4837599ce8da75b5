"""A task that runs the code which stands where others are given their request."""

import sys

exec(sys.argv[1])
