"""A process that ends vLLM's engine when the run script that started it is killed.

The engine is a process of its own and does not notice that nobody is left to ask it: after a `kill -9` of the script
it would wait for ever, with its memory on the GPU, which the next run then lacks.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress

import psutil

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 20  # between asking a process to end and ending it


def start_guard() -> None:
    """Watch over this process: what it starts ends when it has ended, in whatever way."""
    # -P: without it this file's folder would be searched first, and its math.py would replace Python's.
    command = [sys.executable, "-P", __file__, str(os.getpid())]
    quiet = subprocess.DEVNULL  # it must not hold the terminal or a pipe of the script open
    subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def watch(script: int) -> None:
    """Wait until the parent process `script` is gone, then end the children that it had."""
    parent = psutil.Process(script)
    children: set[psutil.Process] = set()
    while os.getppid() == script:
        with suppress(psutil.NoSuchProcess):
            children.update(parent.children())
        time.sleep(POLL_SECONDS)
    children.discard(psutil.Process())
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    for child in alive:
        with suppress(psutil.NoSuchProcess):
            child.kill()


if __name__ == "__main__":
    watch(int(sys.argv[1]))
