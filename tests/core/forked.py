"""``iarmem`` in a process of its own that has imported everything already.

A command that is started by itself spends seconds on imports. Here a program has made them, and
forks for each command: arguments, environment, folder, output and exit status are the child's own.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

Done = subprocess.CompletedProcess[str]


def run_iarmem(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, columns: int = 300
) -> Done:
    """Run ``iarmem`` with these arguments, wide enough that no line is broken.

    Args:
        arguments: words of the command line.
        environment: what is set beside this process's environment.
        columns: width of the terminal that there is not.
    """
    wide = {"COLUMNS": f"{columns}", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    words = [str(one) for one in arguments]
    with tempfile.TemporaryDirectory() as folder:
        streams = [str(Path(folder) / name) for name in ("out", "err")]
        told = {
            "words": words,
            "environment": {**os.environ, **wide, **(environment or {})},
            "folder": os.getcwd(),
            "streams": streams,
        }
        status = _asked(json.dumps(told))
        out, err = (Path(one).read_text(encoding="utf-8") for one in streams)
    return subprocess.CompletedProcess(["iarmem", *words], status, out, err)


def _asked(line: str) -> int:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(line + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


@cache
def _server() -> subprocess.Popen[str]:
    environment = {**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.wait()
    server.stdout.close()


def _serve() -> None:
    import torch

    from iarmem_plugin.cli import app
    from iarmem_plugin.jobs import demo, localize, mitigate, protocol  # noqa: F401  # imported
    from iarmem_plugin.report import contact_sheet, page  # noqa: F401  # imported

    torch.set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line), app)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(told: Mapping[str, Any], app: Any) -> NoReturn:
    """Be the command, and end as it does."""
    for descriptor, path in enumerate(told["streams"], 1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    sys.argv = ["iarmem", *told["words"]]
    code: Any = 1
    try:
        app(prog_name="iarmem")
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001  # as Python itself shows it
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve()
