"""Which pictures triggers are tried on: some to bring back, and never-seen ones beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import Targets
from iarmem_plugin.evaluation.recovery.attempts import TriggerProtocol, check_triggers
from iarmem_plugin.interfaces import AnyTrigger, EditData
from iarmem_plugin.jobs.attack import Attack
from iarmem_plugin.jobs.contrast import TRIED
from iarmem_plugin.jobs.demo.pictures import spread
from iarmem_plugin.models.batching import Batching

FEWEST = 20  # pictures never seen, on which thresholds are fixed


def trigger_protocol(
    attack: Attack,
    unseen: Candidates | None,
    targets: Targets | None,
    triggers: Sequence[AnyTrigger],
    *,
    pictures: int = 108,
    calibration: int = 150,
    arms: Iterable[str] = (),
    data: EditData,
    seed: int = 0,
) -> TriggerProtocol:
    """Choose the pictures that triggers are tried on, the same in every arm.

    Args:
        attack: its candidates are brought back, or its canaries alone where there are some; what
            it reports as held out stands beside them.
        unseen: further pictures never seen, which fix thresholds.
        targets: what these are compared with.
        triggers: the triggers.
        pictures: how many are brought back at most, evenly spaced, and how many held-out ones.
        calibration: how many fix thresholds at most.
        arms: names of the arms in which they are tried; none: all.
        data: images that triggers may use.
        seed: seed for what they draw.

    Raises:
        InputError: no candidates, too few pictures never seen, a trigger that lacks what it needs,
            or two that are the same.
        PluginError: one is no trigger.
    """
    known, roles = check_triggers(triggers), attack.candidates.role
    fixing = 0 if unseen is None else min(calibration, len(unseen))
    if unseen is None or targets is None or fixing < FEWEST:
        raise _too_few(fixing)
    for one in known.values():
        for part in sorted(one.needs):
            data.having(part)
    tried = spread(np.flatnonzero(np.isin(roles, TRIED)), pictures)
    beside = spread(np.flatnonzero(roles == "held-out"), pictures)
    if not len(tried):
        raise InputError("there is nothing to bring back: all candidates are held-out pictures")
    places = np.sort(np.concatenate([tried, beside]))
    rows = spread(np.arange(len(unseen)), fixing)
    some, others = attack.candidates.subset(places), unseen.subset(rows)
    both = some.joined(others.images, others.group)
    joined = _joined(attack.targets.subset(places, some), targets.subset(rows, others), both)
    return TriggerProtocol(
        tuple(known.values()),
        both,
        np.arange(len(both)) >= len(places),
        joined,
        attack.similarity,
        attack.prefix_tokens,
        data,
        seed,
        Batching(attack.completing.size),
        np.concatenate([places, np.full(len(rows), -1)]),
        frozenset(arms) or None,
    )


def _too_few(fixing: int) -> InputError:
    return InputError(
        f"triggers need {FEWEST} pictures never seen that fix thresholds, and there are {fixing}; "
        f"give {2 * FEWEST} or more held-out ones: every other is reported"
    )


def _joined(one: Targets, other: Targets, both: Candidates) -> Targets:
    tokens = torch.cat((one.tokens, other.tokens))
    return Targets(tokens, torch.cat((one.images, other.images)), one.reference, both.identity)
