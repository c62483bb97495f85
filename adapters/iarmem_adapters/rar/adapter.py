"""RAR for iarmem: token by token, scored where the last token is predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from iarmem_adapters.class_conditional import ClassConditionalAdapter, Driver
from iarmem_plugin.interfaces import Adapter, Variant
from iarmem_plugin.plugins.hookspecs import hookimpl

from .family import layout_of, own_variant
from .variants import variants

if TYPE_CHECKING:
    from iarmem_adapters.checkpoints.loading import Family


class RARAdapter(ClassConditionalAdapter):
    """One RAR transformer with its MaskGIT-VQGAN.

    Reference: arXiv 2411.00776.
    """

    name: ClassVar[str] = "rar"
    recognises: ClassVar[str] = (
        "cls_token, target_aware_pos_embed, timesteps_embeddings, adaln_before_head, "
        "blocks with mlp.fc1 (RAR)"
    )
    layout_of = staticmethod(layout_of)
    own_variant = staticmethod(own_variant)

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        """Return the released models, the organism and its twin."""
        return variants()

    @classmethod
    def family(cls) -> Family:
        """Return how RAR's networks are told by their weights, and built."""
        from .loading import FAMILY

        return FAMILY

    @classmethod
    def drivers(cls) -> tuple[type[Driver], type[Driver]]:
        """Return what runs this package's RAR, and what runs the official one."""
        from .driver import RARDriver
        from .official import OfficialRARDriver

        return RARDriver, OfficialRARDriver


@hookimpl
def provide_adapters() -> Iterable[type[Adapter]]:
    """Return the RAR adapter."""
    return (RARAdapter,)
