"""``iarmem`` in a process of its own that has imported everything already.

A command that is started by itself spends seconds on imports. Here a program has made them, and
forks for each command: arguments, environment, folder, output and exit status are the child's own.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

Done = subprocess.CompletedProcess[str]
ENDED = Path(__file__).parent / "activations" / "ended_process.py"


def run_iarmem(
    *arguments: str | Path, ranks: int = 1, ended: Sequence[str] = (), columns: int = 300
) -> Done:
    """Run ``iarmem`` with these arguments, wide enough that no line is broken.

    Args:
        arguments: words of the command line.
        ranks: number of processes, told of each other as torchrun tells them.
        ended: what ends each process, see ``ended_process.py``.
        columns: width of the terminal that there is not.

    Returns:
        what all processes printed, and the first exit status that is not 0.
    """
    words, port = [str(one) for one in arguments], _free_port()
    wide = {"COLUMNS": f"{columns}", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            {
                "words": words,
                "environment": os.environ | wide | (_rank(rank, ranks, port) if ranks > 1 else {}),
                "folder": os.getcwd(),
                "streams": [str(Path(folder) / f"{name}{rank}") for name in ("out", "err")],
                "ended": list(ended),
            }
            for rank in range(ranks)
        ]
        status = next(filter(None, _asked(json.dumps(runs))), 0)
        printed = zip(*(map(_text, run["streams"]) for run in runs), strict=True)
        out, err = ("".join(parts) for parts in printed)
    return subprocess.CompletedProcess(["iarmem", *words], status, out, err)


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _rank(rank: int, world: int, port: int) -> dict[str, str]:
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in (told | place).items()}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _asked(line: str) -> list[int]:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(line + "\n")
    server.stdin.flush()
    statuses: list[int] = json.loads(server.stdout.readline())
    return statuses


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
        children = []
        for told in json.loads(line):
            if (child := os.fork()) == 0:
                _become(told, app)
            children.append(child)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), flush=True)


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
    if told["ended"]:
        os.setsid()  # what ends it ends its group
        folder, pattern, count, number = told["ended"]
        end_at = runpy.run_path(str(ENDED))["end_at"]
        end_at(Path(folder), pattern, int(count), int(number))
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
