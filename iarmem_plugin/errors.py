"""Everything iarmem raises on purpose, under one root and beside a fitting builtin."""

from __future__ import annotations


class IarmemError(Exception):
    """Root of all errors raised on purpose: what was given, what was expected, what to do."""


class UnknownNameError(IarmemError, LookupError):
    """No plugin, variant or model of that name; the message lists what there is."""


class InputError(IarmemError, ValueError):
    """An argument, picture, label or file that cannot be used."""


class BatchMemoryError(IarmemError, MemoryError):
    """Not even one image at a time fits in memory."""


class WeightsError(IarmemError, ValueError):
    """A weight file or model object that does not fit the variant it was given for."""


class FetchError(IarmemError, OSError):
    """A file could not be downloaded; the message says why and what to do."""


class BypassedNeuronsError(IarmemError, RuntimeError):
    """A trace cannot reach the model's neurons, as where a fused MLP never calls its maps."""


class NonFiniteActivationError(IarmemError, ArithmeticError):
    """NaN or infinity among the activations; the message names block, scale and image."""


class NonFiniteSimilarityError(IarmemError, ArithmeticError):
    """NaN or infinity among similarities or logits; the message names the images."""


class NonFiniteLogitsError(NonFiniteSimilarityError):
    """NaN or infinity among logits.

    Attributes:
        rows: numbers of the images within their batch.
        position: first token position, from 0, at which an image has such logits.
    """

    def __init__(self, message: str, rows: tuple[int, ...], position: int) -> None:
        super().__init__(message, rows, position)
        self.rows, self.position = rows, position

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0])


class WorkerError(IarmemError, RuntimeError):
    """A process that decodes pictures has ended, as when memory runs out."""


class RankError(IarmemError, RuntimeError):
    """Another process of the same run has ended; its own message says why."""


class PluginError(IarmemError, RuntimeError):
    """Two plugins provide the same name, or a plugin provides what it should not."""


class StoreError(IarmemError):
    """Root of the activation store's errors."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is nothing at the path; the message lists similar names."""


class NotAStoreError(StoreError, ValueError):
    """The path holds something that is not an activation store."""


class StoreVersionError(StoreError, ValueError):
    """The store was written by a newer release."""


class UnknownModelError(StoreError, LookupError):
    """The store holds no activations of that model."""


class CorruptStoreError(StoreError, RuntimeError):
    """Part of the store is missing or damaged."""


class IncompleteCaptureError(StoreError, RuntimeError):
    """Not all images of the store have been captured."""


class FingerprintMismatchError(StoreError, ValueError):
    """The store was captured with other settings; the message names the fields."""


class StoreLockedError(StoreError, RuntimeError):
    """Another process is writing to the store."""


class LockError(StoreError, OSError):
    """The lock of a store cannot be written, as on a file system that is read-only."""


class StoreAccessError(StoreError, OSError):
    """The store's place cannot be read or written, as when a disk or a network fails."""


class DiskFullError(StoreError, OSError):
    """The disk has no room for what is to be written; what was committed is kept."""


class EndedBySignal(SystemExit):
    """Ends Python in order, since a signal asked for it; no plugin did."""
