"""``iarmem`` on the command line: arguments in, one call, a table out."""

from __future__ import annotations

from iarmem_plugin.cli.main import app

__all__ = ["app"]
