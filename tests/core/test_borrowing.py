"""What is borrowed goes back: generators, and no interruption half way."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.borrowing import generators_kept, uninterrupted
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import Zero
from iarmem_plugin.testing.tiny import TinyAdapter


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


@pytest.mark.parametrize("fails", [False, True])
def test_every_generator_comes_back(fails: bool) -> None:
    with generators_kept():
        expected = drawn()
    try:
        with generators_kept(torch.device("cpu")):
            drawn()
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    with generators_kept():
        assert drawn() == expected


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Hear Ctrl-C also where the test runner was started without it, in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_until_the_block_is_done() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done = True
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_is_called_afterwards_and_put_back() -> None:
    called: list[int] = []

    def own(number: int, _: object) -> None:
        called.append(number)

    before = signal.signal(signal.SIGTERM, own)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            assert called == []
        assert called == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_there_is_nothing_to_hold() -> None:
    done: list[bool] = []

    def work() -> None:
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def in_a_thread(work: Callable[[], object]) -> list[object]:
    """Return what a thread's work returned or raised."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except InputError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


def test_a_model_that_a_thread_uses_is_refused_to_others_until_it_is_done() -> None:
    first = ImageARModel(TinyAdapter.make())
    second, other = ImageARModel(first.adapter), ImageARModel(TinyAdapter.make())

    def used(model: ImageARModel) -> int:
        with model.borrowed(), model.borrowed():
            return len(model.tokenize(torch.zeros(2, 3, 8, 8)))

    with first.borrowed():
        assert used(first) == 2  # by the thread itself
        (refusal,) = in_a_thread(lambda: used(second))  # of the same network
        assert isinstance(refusal, InputError)
        assert "in use by another thread" in str(refusal)
        assert in_a_thread(lambda: used(other)) == [2]
    assert in_a_thread(lambda: used(second)) == [2]


def test_a_model_whose_weights_a_thread_edits_is_refused_to_others() -> None:
    model = ImageARModel(TinyAdapter.make())
    neurons = xr.DataArray(np.ones((3, 128), bool), dims=("block", "neuron"))
    tokens, told = torch.zeros(2, 0, dtype=torch.int64), Condition.of([0, 1])

    def edit() -> None:
        with intervene(model, neurons, Zero(), backend="weights"):
            pass

    with intervene(model, neurons, Zero(), backend="weights"):
        for work in (edit, lambda: model.complete(tokens, told, Sampling())):
            (refusal,) = in_a_thread(work)
            assert "in use by another thread" in str(refusal)
    with model.borrowed():
        (refusal,) = in_a_thread(edit)
        assert "in use by another thread" in str(refusal)
    assert in_a_thread(edit) == [None]
