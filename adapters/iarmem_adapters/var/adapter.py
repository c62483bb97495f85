"""VAR for iarmem: next-scale prediction, ten scales in one teacher-forced pass."""

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


class VARAdapter(ClassConditionalAdapter):
    """One VAR transformer with its multi-scale VQVAE.

    Reference: arXiv 2404.02905.
    """

    name: ClassVar[str] = "var"
    decoding: ClassVar[str] = "the last scale's feature map alone, as VAR's own sampler does"
    recognises: ClassVar[str] = (
        "pos_start, lvl_1L, word_embed, class_emb, head_nm and blocks with ffn.fc1 (VAR)"
    )
    module_aliases: ClassVar[Mapping[str, str]] = {"ffn": "mlp"}
    fused_advice: ClassVar[str] = "for VAR: fused_if_available=False"
    layout_of = staticmethod(layout_of)
    own_variant = staticmethod(own_variant)

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        """Return the released models, the organism and its twin."""
        return variants()

    @classmethod
    def family(cls) -> Family:
        """Return how VAR's networks are told by their weights, and built."""
        from .loading import FAMILY

        return FAMILY

    @classmethod
    def drivers(cls) -> tuple[type[Driver], type[Driver]]:
        """Return what runs this package's VAR, and what runs the official one."""
        from .driver import VARDriver
        from .official import OfficialVARDriver

        return VARDriver, OfficialVARDriver


@hookimpl
def provide_adapters() -> Iterable[type[Adapter]]:
    """Return the VAR adapter."""
    return (VARAdapter,)
