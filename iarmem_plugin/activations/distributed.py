"""Ranks: the processes of one run, as torchrun started them; alone where it did not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from iarmem_plugin.errors import InputError, RankError
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")
_LONGEST_WAIT = timedelta(days=2)  # one rank may have a slab more than another; torchrun ends both
_COUNTED = "images captured by all ranks"


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process among those that do the same job together; alone by default.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
        local: number of this process among those on its machine.
        counter: key-value store that all share; None for a process alone.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    counter: Store | None = None

    @property
    def first(self) -> bool:
        """Tell whether this is the process that does what must be done once."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Return this process's device: ``"cuda"`` is one GPU for each process of a machine."""
        return f"cuda:{self.local}" if name == "cuda" and self.world > 1 else name

    def broadcast(self, make: Callable[[], T], *, source: int = 0) -> T:
        """Return what one process makes, in every process.

        Args:
            make: what makes it; called in that process alone.
            source: rank of that process.

        Raises:
            RankError: another process has ended.
        """
        made = [make() if self.rank == source else None]
        if self.world > 1:
            import torch.distributed as dist

            with _others_named():
                dist.broadcast_object_list(made, src=source)
        return cast("T", made[0])

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in their order; all wait for one another.

        Raises:
            RankError: another process has ended.
        """
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        with _others_named():
            dist.all_gather_object(values, value)
        return cast("list[T]", values)

    def wait(self) -> None:
        """Wait until all processes are here.

        Raises:
            RankError: another process has ended.
        """
        self.gather(None)

    def count(self, images: int, so_far: int) -> int:
        """Add to the number of images that all processes have captured, and return it.

        Args:
            images: number captured by this process since it last counted.
            so_far: number captured by this process alone, these included.
        """
        return so_far if self.counter is None else int(self.counter.add(_COUNTED, images))


@contextmanager
def join_processes(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started with this one: gloo on the CPU, nccl on GPUs.

    torchrun says by environment variables who is who. Without it, the process is alone, and
    nothing is imported or started.

    Args:
        device: name of the device, as the user gives it; several processes of a machine cannot
            share one GPU.

    Raises:
        InputError: more processes than GPUs, a numbered GPU for several processes, or variables
            that torchrun did not set so.
    """
    rank, world, local = started_processes()
    if world == 1:
        yield Ranks()
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    _take_gpu(device, local)
    with _others_named():
        store, _, _ = next(iter(rendezvous("env://", timeout=timedelta(minutes=10))))
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=PrefixStore("iarmem", store),
            rank=rank,
            world_size=world,
            timeout=_LONGEST_WAIT,
        )
    ranks = Ranks(rank, world, local, PrefixStore("iarmem count", store))
    yield ranks
    ranks.wait()  # a process that leaves while another still talks to it can be aborted
    dist.destroy_process_group()  # not after an error, when another process may never answer


def started_processes() -> tuple[int, int, int]:
    """Return number of this process, of all, and among those of its machine, as torchrun says.

    A variable that is empty counts as one that is not set; without any, the process is alone.

    Raises:
        InputError: naming the variable that is not set, or not to a number that fits.
    """
    world = _number("WORLD_SIZE", "1")
    if world == 1:
        return 0, 1, 0
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if not os.environ.get(name, "").strip()]
    if missing:
        raise InputError(
            f"WORLD_SIZE is {world}, but {' and '.join(missing)} are not set; start the "
            "processes with torchrun, or unset WORLD_SIZE"
        )
    rank, local, _ = (_number(name) for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"))
    if world < 1 or not local <= rank < world:
        raise InputError(
            f"WORLD_SIZE is {world}, RANK {rank} and LOCAL_RANK {local}, which do not fit each "
            "other; start the processes with torchrun, or unset WORLD_SIZE"
        )
    return rank, world, local


def _number(variable: str, default: str = "") -> int:
    text = os.environ.get(variable, "").strip() or default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InputError(
            f"the environment variable {variable} is {shown(text, 40)!r}, and torchrun sets it to "
            "a number from 0; start the processes with torchrun, or unset WORLD_SIZE"
        )
    return int(text)


def _take_gpu(device: str, local: int) -> None:
    if not device.startswith("cuda"):
        return
    import torch

    if device != "cuda":
        raise InputError(
            f"the device {device!r} was given to several processes; give 'cuda', and each takes "
            "the GPU of its number"
        )
    if local >= torch.cuda.device_count():
        raise InputError(
            f"process {local} of this machine has no GPU of its own; there are "
            f"{torch.cuda.device_count()}: start as many processes with --nproc-per-node"
        )
    torch.cuda.set_device(local)


@contextmanager
def _others_named() -> Iterator[None]:
    """Say what it means that a connection ends, instead of what the library says."""
    try:
        yield
    except RuntimeError as error:
        raise RankError(
            "another process of this run has ended; the message of that process says why"
        ) from error
