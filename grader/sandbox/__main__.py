"""What the processes of the sandbox run: `server DESCRIPTOR` or `fresh PLAN`, after `python -m grader.sandbox`."""

import sys

from grader.sandbox import child, server

if __name__ == "__main__":
    {"server": server.main, "fresh": child.main}[sys.argv[1]](sys.argv[2])
