"""`python -m rm_assets.tasks.remote TASK REQUEST`: a task whose environment comes as a JSON object in the first line of standard input.

Read byte by byte: what follows on the pipe is the parent's sign of life, for the task itself.
"""

import json
import os
import runpy
import sys


def _first_line() -> bytes:
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


if __name__ == "__main__":
    os.environ.update(json.loads(_first_line()))
    task = sys.argv.pop(1)
    runpy.run_module(f"rm_assets.tasks.{task}", run_name="__main__", alter_sys=True)
