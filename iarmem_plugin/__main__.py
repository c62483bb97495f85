"""``python -m iarmem_plugin`` is ``iarmem``, for launchers that want a module."""

from __future__ import annotations

from iarmem_plugin.cli.main import app

if __name__ == "__main__":
    app(prog_name="iarmem")
