"""What the page's section on membership shows, and its files."""

from __future__ import annotations

from typing import Any

import xarray as xr

from iarmem_plugin.evaluation.membership.comparing import Membership, compare_membership
from iarmem_plugin.evaluation.membership.signals import LEFT_OUT
from iarmem_plugin.report.membership.showing import membership_files, membership_rows


def compared(membership: xr.Dataset | None) -> tuple[Membership, ...]:
    """Return every group told from pictures never seen; nothing where there are none of these."""
    if membership is None or not (membership["role"] == "held-out").any():
        return ()
    return compare_membership(membership)


def membership_section(membership: xr.Dataset | None) -> dict[str, Any] | None:
    """Return what the template fills in; None where nothing was measured."""
    found = compared(membership)
    if membership is None or not found:
        return None
    tables = []
    for against in dict.fromkeys(one.against for one in found):
        head, *rows = membership_rows(found, against=against)
        tables.append((against, head, rows))
    return {"tables": tables, "left_out": str(membership.attrs.get(LEFT_OUT, ""))}


def files(membership: xr.Dataset | None) -> dict[str, bytes]:
    """Return the tables as files; none where nothing was measured."""
    found = compared(membership)
    return membership_files(found) if found else {}
