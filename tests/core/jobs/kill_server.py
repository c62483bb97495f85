"""A program that has imported everything, and forks a process for each command that it is told.

It reads a line of JSON for each: ``runs`` are the commands to run at once, each with its ``words``
and ``environment``; ``after`` is the number of seconds after which all are killed, or null. It
answers with a line: the status of each, as `os.waitpid` tells it, and the seconds that they took.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from iarmem_plugin.cli import app
from iarmem_plugin.jobs import localize, mitigate, protocol, scores  # noqa: F401
from iarmem_plugin.report.report import Report
from iarmem_plugin.store.store import ActivationStore  # noqa: F401  # imports zarr


def save(words: list[str]) -> None:
    """Write scores and a report again, as other folders hold them."""
    given, out = map(Path, words)
    scores.save_scores(scores.load_scores(given / "scores"), out / "scores")
    Report.load(given / "report").save(out / "report")


def work(run: dict[str, Any], log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(run["environment"])
    code = 1
    try:
        if run["words"][0] == "save":
            save(run["words"][1:])
        else:
            app(run["words"])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)


def serve(log: str) -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        told, begun, children = json.loads(line), time.monotonic(), []
        for run in told["runs"]:
            child = os.fork()
            if child == 0:
                work(run, log)
            children.append(child)
        if told["after"] is not None:
            time.sleep(told["after"])
            for child in children:
                os.kill(child, signal.SIGKILL)
        states = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps([states, time.monotonic() - begun]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
