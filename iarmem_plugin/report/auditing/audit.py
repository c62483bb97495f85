"""An audit: what was found of one's own pictures, shown and saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iarmem_plugin.report.auditing.findings import Findings
from iarmem_plugin.report.auditing.showing import counts_table, files
from iarmem_plugin.table import TextTable


@dataclass(frozen=True, slots=True, repr=False)
class Audit(Findings):
    """Findings that can be shown and saved; see `Findings` for what they hold."""

    def table(self) -> TextTable:
        """Return the counts beside false alarms, to print on a terminal."""
        return counts_table(self)

    def save(self, folder: str | Path) -> Path:
        """Write ``audit.html``, ``audit.csv``, ``audit.json`` and ``values.csv``: all, or none.

        Returns:
            the folder.

        Raises:
            InputError: the folder holds something else than an audit.
            DiskFullError: there is no room; an earlier audit stays.
        """
        return files(self, Path(folder))
