"""Budgets: what a trigger may spend."""

from __future__ import annotations

from collections.abc import Sequence

from iarmem_plugin.checks import check_integer
from iarmem_plugin.errors import InputError


def checked_budgets(budgets: Sequence[int], *, least: int) -> tuple[int, ...]:
    """Return budgets as a tuple.

    Args:
        budgets: what may be spent.
        least: the smallest that there can be.

    Raises:
        InputError: there are none, one is no integer or too small, or they do not rise.

    Example:
        >>> checked_budgets([0, 5, 10], least=0)
        (0, 5, 10)
    """
    for one in budgets:
        check_integer("a budget", one, least=least)
    if not budgets or list(budgets) != sorted(set(budgets)):
        raise InputError(f"budgets are {list(budgets)}; expected numbers that rise, such as 1, 4")
    return tuple(int(one) for one in budgets)
