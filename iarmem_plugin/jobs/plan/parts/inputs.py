"""The model, the twin and the pictures of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from iarmem_plugin.jobs.plan.parts import values as of
from iarmem_plugin.jobs.plan.parts.table import Part, dashed, form


class ModelPart(Part):
    """A model and its files."""

    name: of.Model
    """A model or family listed by `iarmem models`."""
    weights: of.Place | None = None
    """File of the transformer's weights."""
    tokenizer: of.Place | None = None
    """File of the tokenizer's weights."""
    files: dict[of.Words, of.Place] = Field(default_factory=dict)
    """Further files that it needs, by their roles, such as "text encoder"."""
    device: of.Words = "cpu"
    """Such as cpu, cuda or cuda:1."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision of the weights."""
    compile: of.Flag = False
    """Compile the tokenizer."""

    @field_validator("files")
    @classmethod
    def _check_files(cls, files: dict[str, Path]) -> dict[str, Path]:
        for role in ("weights", "tokenizer"):
            if role in files:
                raise ValueError(f"{role} has a key of its own; leave it out here")
        return files

    @property
    def roles(self) -> dict[str, Path | None]:
        """The file of each role; None where it is not named."""
        return {"weights": self.weights, "tokenizer": self.tokenizer, **self.files}


class PicturesPart(Part):
    """Which pictures are tried, held out, and compared with."""

    organism: of.Flag = False
    """Use the bundled organism's own pictures, groups and split; then no paths are given."""
    members: of.Count | None = None
    """Of an organism, candidates of each group of members; by default 34."""
    images: of.Place | None = None
    """Training pictures: a folder with a folder per class, an .npz file, or a .txt list."""
    candidates: (
        Annotated[
            Annotated[of.Place, Tag("text")] | Annotated[dict[of.Words, of.Place], Tag("table")],
            Discriminator(form),
        ]
        | None
    ) = None
    """Pictures to try, in place of ranking `images`; or a table of a path for each group, whose \
name gives its role as in an organism ("canary 40", "member, distinct")."""
    held_out: of.Place | None = None
    """Pictures the model never saw: every other one fixes thresholds, the rest are reported."""
    reference: of.Place | None = None
    """Real pictures to compare image quality with, if not `images`; or an .npz file of their \
features from `iarmem features`, or of `mu` and `sigma`, as ADM's statistics have them."""
    contrast_with: of.Place | None = None
    """Pictures that candidates are contrasted with; by default held-out ones not reported."""
    retain: of.Place | None = None
    """Training pictures that edits of the whole model are to keep, none of them a candidate."""
    root: of.Place | None = None
    """Folder that the paths in a .txt are in, if not the .txt's own."""
    classes: of.Place | None = None
    """File that maps each class folder's name to its index."""
    on_bad_image: Literal["error", "skip"] = "error"
    """Stop at pictures that do not open, or skip them."""
    workers: of.Processes = 0
    """Processes that decode pictures; 0: this one."""

    @field_validator("candidates", mode="before")
    @classmethod
    def _check_candidates(cls, given: Any) -> Any:
        if given is None or isinstance(given, str | Path) or (isinstance(given, dict) and given):
            return given
        raise ValueError("expected a path, or a table with a path for each group")

    @property
    def sources(self) -> dict[str, Path | None]:
        """Every folder or list of pictures by its key; of candidates in groups, by the group."""
        groups = self.candidates if isinstance(self.candidates, dict) else None
        named = {"candidates": self.candidates} if groups is None else {}
        named |= {f"candidates {group}": path for group, path in (groups or {}).items()}
        others = ("images", "held_out", "reference", "contrast_with", "retain", "root")
        return {**named, **{dashed(one): getattr(self, one) for one in others}}
