"""The result of stage 1 of the attack: every image with its score, to choose candidates from."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64, Int32, Int64, UInt8

from iarmem_plugin.checks import check_integer, check_kind
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.lists import refuse_unlistable
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.ranking.contents import content_of
from iarmem_plugin.evaluation.ranking.facts import identity
from iarmem_plugin.files import check_file, finish_writing, write_whole
from iarmem_plugin.fingerprint import canonical_json
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import parse_json, read_small

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.models.tracing import ImageARModel

LARGEST_FILE = 2**32  # bytes; ImageNet's ranking has about 130 million
_COLUMNS = {  # of the file: dims and type
    "id": (("image",), "<i8"),
    "label": (("image",), "<i4"),
    "hit_rate": (("image",), "<f8"),
    "log_probability": (("image",), "<f8"),
    "content": (("image", "byte"), "|u1"),
}
_TOLD = ("positions", "image_list_sha256", "weights_sha256")
_DAMAGES = (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ranking:
    """How well a model predicts each of some images, from `rank`; candidates are chosen from it.

    Attributes:
        ids: global id of each image.
        paths: name of each image.
        labels: class of each image; -1 where they have none.
        hit_rate: share of the counted tokens that the model predicts, in [0, 1].
        log_probability: mean log-likelihood of the counted tokens.
        content: SHA-256 of each image's content; None where it was not read.
        provenance: which model, images, view and token positions it was made with.

    Raises:
        InputError: the columns are of different lengths.
    """

    ids: Int64[np.ndarray, " image"]
    paths: tuple[str, ...]
    labels: Int32[np.ndarray, " image"]
    hit_rate: Float64[np.ndarray, " image"]
    log_probability: Float64[np.ndarray, " image"]
    content: UInt8[np.ndarray, "image 32"] | None
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Compare the lengths."""
        columns = (self.ids, self.labels, self.hit_rate, self.log_probability, self.content)
        lengths = {len(self.paths), *(len(one) for one in columns if one is not None)}
        if len(lengths) > 1:
            raise InputError(f"the columns of a ranking have {sorted(lengths)} values; give equal")

    @classmethod
    def of(
        cls,
        images: Images,
        hit_rate: Float64[np.ndarray, " image"],
        log_probability: Float64[np.ndarray, " image"],
        content: UInt8[np.ndarray, "image 32"] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Ranking:
        """Make the ranking of some images; see the class."""
        about = {} if provenance is None else provenance
        scores = (hit_rate, log_probability)
        return cls(images.ids, images.paths, images.labels, *scores, content, about)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __repr__(self) -> str:
        """Return the number of images, and the model."""
        return f"Ranking({len(self)} images, {self.provenance.get('model', 'any model')!s})"

    @property
    def order(self) -> Int64[np.ndarray, " image"]:
        """Positions of all images, the best first: hit rate, mean log-likelihood, smaller id."""
        return np.lexsort((self.ids, -self.log_probability, -self.hit_rate))

    @property
    def copies(self) -> Bool[np.ndarray, " image"]:
        """Whether an image has the content of one that is before it in the order."""
        found = np.zeros(len(self), bool)
        if self.content is not None:
            rows = np.ascontiguousarray(self.content[self.order]).view("V32").ravel()
            found[self.order] = True
            found[self.order[np.unique(rows, return_index=True)[1]]] = False
        return found

    def candidates(
        self,
        images: Images,
        *,
        per_class: int = 5,
        global_top: int | None = None,
        near_duplicates: float | None = None,
        group: str = "ranked",
        progress: Progress | None = None,
    ) -> Candidates:
        """Choose the images that the model predicts best, in a total order.

        The order is that of the hit rate; of equals, of the mean log-likelihood; then of the id.
        Images of one content count once, for the first of them; a warning says how many do not.

        Args:
            images: the images that were ranked, and perhaps more.
            per_class: images to keep of each class, or of all where there are no classes; a class
                with fewer is kept whole.
            global_top: images to keep of all, whatever their class, in place of `per_class`.
            near_duplicates: correlation in (0, 1) above which two candidates are near-duplicates;
                their clusters are then found, see `Candidates.with_clusters`.
            group: name for the group of all candidates.
            progress: display to which progress bars are added.

        Returns:
            the best first within each class, classes ascending; or the best of all first.

        Raises:
            InputError: other images than those that were ranked, or less than one to keep.
        """
        check_integer("per_class, the images to keep of each class,", per_class, least=1)
        places = self.places_in(images)
        distinct = self._distinct()
        if global_top is not None:
            check_integer("global_top", global_top, least=1)
            kept = distinct[:global_top]
        else:
            kept = _best_of_each(distinct, self.labels[distinct], per_class)
        chosen = images.subset(places[kept])
        self._check_contents(chosen, kept)
        found = Candidates(chosen, np.full(len(kept), group), self.hit_rate[kept])
        found = replace(found, ranking=self._about(per_class, global_top))
        if near_duplicates is None:
            return found
        return found.with_clusters(near_duplicates, progress=progress)

    def places_in(self, images: Images) -> Int64[np.ndarray, " image"]:
        """Return where each ranked image is in a list, which may have more than were ranked.

        Raises:
            InputError: an image is not in it, or has another label, id or caption there.
        """
        if images.paths == self.paths:
            places = np.arange(len(self))
        else:
            known = {path: place for place, path in enumerate(images.paths)}
            places = np.array([known.get(path, -1) for path in self.paths])
        if len(lost := np.flatnonzero(places < 0)):
            raise InputError(
                f"{len(lost)} of {len(self)} ranked images are not among the {len(images)} that "
                f"are given, such as {shown(self.paths[lost[0]], 80)!r}; give the images that were "
                "ranked, or rank these"
            )
        for name, was, now in (("label", self.labels, images.labels), ("id", self.ids, images.ids)):
            if len(other := np.flatnonzero(was != now[places])):
                raise InputError(
                    f"the image {shown(self.paths[other[0]], 80)!r} was ranked with the {name} "
                    f"{was[other[0]]}, and has {now[places[other[0]]]}; rank these images"
                )
        if images.captions is not None:
            ranked = self.provenance.get("image_list_sha256")
            if ranked not in (None, images.subset(places).digest):
                raise InputError("the captions differ from those that were ranked; rank these")
        return places

    def check_model(self, model: ImageARModel) -> None:
        """Refuse another model than the one that ranked; call it with the unmodified model.

        Raises:
            InputError: naming what differs: weights, tokenizer, precision or view.
        """
        known, given = identity(self.provenance), identity(model)
        if known and known != given:
            names = sorted(one for one in known | given if known.get(one) != given.get(one))
            raise InputError(
                f"the ranking was made by another model: {', '.join(names)} differ from those of "
                f"{model.adapter.variant.name}; give the one that ranked, or rank anew"
            )

    def save(self, file: Path | str) -> None:
        """Write the ranking as netCDF, as a whole or not at all; about 100 bytes an image.

        Raises:
            InputError: it cannot be written there, or the images' contents were not read.
            DiskFullError: there is no room.
        """
        check_file(place := Path(file))
        if self.content is None:
            raise InputError("a ranking without the images' contents is not saved; make it by rank")
        columns = (self.ids, self.labels, self.hit_rate, self.log_probability, self.content)
        stored: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
            name: (dims, np.asarray(values, kind))
            for (name, (dims, kind)), values in zip(_COLUMNS.items(), columns, strict=True)
        }
        stored["path"] = (("image",), np.array([path.encode() for path in self.paths]))
        about = canonical_json(self.provenance)
        attributes = {"provenance": about, "checksum": _checksum(stored, about)}
        write_whole(place, bytes(xr.Dataset(stored, attrs=attributes).to_netcdf(engine="h5netcdf")))

    @classmethod
    def load(cls, file: Path | str) -> Ranking:
        """Read a ranking that `save` wrote.

        Raises:
            InputError: there is none, or it is damaged, was changed, or is something else.
        """
        place = Path(file)
        finish_writing(place.parent)
        if place.is_dir():
            raise InputError(f"{shown(place)} is a folder; name the file that 'iarmem rank' wrote")
        content = read_small(place, "the ranking", limit=LARGEST_FILE)
        try:
            return cls._read(content)
        except _DAMAGES as error:
            raise InputError(
                f"{shown(place)} holds no ranking, or is damaged ({shown(error, 120)}); make one "
                "with 'iarmem rank'"
            ) from error

    @classmethod
    def _read(cls, content: bytes) -> Ranking:
        with xr.open_dataset(BytesIO(content), engine="h5netcdf", decode_cf=True) as dataset:
            if dataset.nbytes > len(content):  # nothing is compressed here
                raise ValueError(f"it promises {dataset.nbytes / 1e6:.0f} MB")
            found = {
                name: (dims, _column(dataset, name, dims, kind))
                for name, (dims, kind) in _COLUMNS.items()
            }
            found["path"] = (("image",), np.asarray(dataset["path"].to_numpy(), np.bytes_))
            about = str(dataset.attrs.get("provenance"))
            if dataset.attrs.get("checksum") != _checksum(found, about):
                raise ValueError("its checksum does not fit")
        paths = tuple(one.decode() for one in found["path"][1].tolist())
        refuse_unlistable(paths)
        ids, labels, hit_rate, log_probability, hashes = (found[name][1] for name in _COLUMNS)
        if not (np.isfinite(hit_rate).all() and np.isfinite(log_probability).all()):
            raise ValueError("a score is not finite")
        provenance = parse_json(about, "its provenance")
        check_kind("its provenance", provenance, dict, "a mapping")
        return cls(ids, paths, labels, hit_rate, log_probability, hashes, provenance)

    def _about(self, per_class: int, global_top: int | None) -> dict[str, Any]:
        """Return what is said of candidates in a report."""
        kept = {"per_class": per_class} if global_top is None else {"global_top": global_top}
        known = {name: self.provenance[name] for name in _TOLD if name in self.provenance}
        counted = self.provenance.get("positions", [])
        if counted and counted == list(range(counted[0], counted[-1] + 1)):
            known["positions"] = f"{counted[0]} to {counted[-1]}"
        by = "each image counts" if self.content is None else "each content counts once"
        return {"images": len(self), **kept, "duplicates": by, **known}

    def _distinct(self) -> Int64[np.ndarray, " kept"]:
        """Return the order without copies, and say so."""
        copies, order = self.copies, self.order
        if count := int(copies.sum()):
            warnings.warn(
                f"{count} of {len(self)} images are copies of others, such as "
                f"{shown(self.paths[int(copies.argmax())], 80)!r}; each content counts once",
                stacklevel=3,
            )
        return np.asarray(order[~copies[order]])

    def _check_contents(self, images: Images, kept: Int64[np.ndarray, " kept"]) -> None:
        """Refuse candidates whose pictures were changed since they were ranked."""
        if self.content is None:
            return
        for number, place in enumerate(kept.tolist()):
            if content_of(images, number) != self.content[place].tobytes():
                raise InputError(
                    f"the picture {shown(self.paths[place], 100)!r} is not the one that was "
                    "ranked: its content has changed; rank the images anew"
                )


def _best_of_each(
    order: Int64[np.ndarray, " image"], labels: Int32[np.ndarray, " image"], count: int
) -> Int64[np.ndarray, " kept"]:
    by_class = np.argsort(labels, kind="stable")
    sorted_labels = labels[by_class]
    starts = np.searchsorted(sorted_labels, sorted_labels)  # where each one's class begins
    return order[by_class[np.arange(len(order)) - starts < count]]


def _column(dataset: xr.Dataset, name: str, dims: tuple[str, ...], kind: str) -> np.ndarray:
    variable = dataset[name]
    if variable.dims != dims or variable.dtype != np.dtype(kind):
        raise ValueError(f"{name!r} is {variable.dtype} {variable.dims}, expected {kind} {dims}")
    return np.asarray(variable)


def _checksum(columns: Mapping[str, tuple[Any, np.ndarray]], about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(columns):
        values = np.ascontiguousarray(columns[name][1])
        digest.update(f"{name} {values.dtype.kind} {values.shape} ".encode() + values.tobytes())
    return digest.hexdigest()
