"""The extraction attack of a plan, and what an edit costs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, field_validator

from iarmem_plugin.jobs.plan.parts import values as of
from iarmem_plugin.jobs.plan.parts.table import Part, form


class DecodingPart(Part):
    """How tokens are drawn after the prefix, if the likeliest is not taken."""

    temperature: of.Above0 = 1.0
    """Number that divides the logits."""
    top_k: of.Count = 0
    """Number of likeliest tokens that are kept; 0 keeps all."""
    top_p: of.Share = 0.0
    """Probability that the kept tokens reach together; 0 keeps all."""
    guidance: of.Least0 = 0.0
    """Strength of classifier-free guidance; 0 turns it off."""
    seed: of.Seed = 0
    """Seed of the tokens that are drawn."""


class AttackPart(Part):
    """How candidates are chosen and extracted, the same in every arm."""

    ranking: of.Place | None = None
    """File that `iarmem rank` wrote; the best of it are the candidates."""
    per_class: of.Positive = 5
    """Images of each class to try, the best predicted first; of all, without classes."""
    global_top: of.Positive | None = None
    """Images to try, the best predicted of all classes, in place of `per-class`."""
    near_duplicates: of.Between | None = None
    """Pixel correlation above which two candidates are near-duplicates, which are marked."""
    prefix_tokens: of.Count | None = None
    """Tokens given to each completion; by default as many as the model's paper gives."""
    decoding: Annotated[
        Annotated[Literal["greedy"], Tag("text")] | Annotated[DecodingPart, Tag("table")],
        Discriminator(form),
    ] = "greedy"
    """How tokens are chosen after the prefix: the likeliest, or drawn as a table says."""
    view: of.Count | None = None
    """View of the training that candidates are completed from, from 0; by default the centre \
view, by which they are ranked in any case."""
    reference: Literal["reconstruction", "original"] = "reconstruction"
    """What completions are compared with: the picture as the tokenizer gives it back, or itself."""
    similarity: of.Similarity = "correlation"
    """Compares completion and target, be it with options."""
    threshold: of.Number | None = None
    """Similarity above which an image counts as extracted, in place of a fixed or usual one."""
    few_held_out: of.Flag = False
    """Fix the threshold on fewer than 20 images, too."""
    recalibrate: of.Flag = True
    """Fix thresholds anew in each arm, too, where images are held out."""
    generations: of.Images = 0
    """Images that the unmodified model draws freely, as candidates of their own."""
    batch_size: of.Positive = 32
    """Images in one pass of the model."""
    check_batching: of.Images = 0
    """Complete so many candidates in batches and one by one, and report the difference."""
    backend: Literal["weights", "trace"] = "weights"
    """How neurons are edited: their weights in place, or the values in a trace."""

    @field_validator("decoding", mode="before")
    @classmethod
    def _check_decoding(cls, given: Any) -> Any:
        if given == "greedy" or isinstance(given, dict | DecodingPart):
            return given
        raise ValueError("expected 'greedy', or a table such as { temperature = 1.0, top-k = 100 }")


class QualityPart(Part):
    """What an edit costs."""

    losses: of.Flag = True
    """Measure the held-out loss, where images are held out."""
    images: of.ImageQuality | None = None
    """Measure of generated images, such as fid:extractor=FILE; of an organism, fid alone sees by \
its own classifier. By default none are generated."""
    generated: of.Several = 1000
    """Images to generate."""
    seeds: of.Rounds = 1
    """How often to generate them, each time with the next sampling seed."""
    temperature: of.Temperature | None = None
    """Of images and of triggers that draw tokens: a number, or "tuned"; by default as published."""


class RecoveryPart(Part):
    """How much work brings pictures back: triggers that are tried in each arm."""

    triggers: tuple[of.Trigger, ...] = ()
    """Triggers, be it with options; by default none is tried."""
    pictures: of.Positive = 108
    """Candidates that are tried, evenly spaced among the canaries, or among all that are given, \
and at most as many pictures never seen beside them."""
    calibration: of.Positive = 150
    """Further pictures never seen, on which each arm's thresholds are fixed."""
    membership: of.Flag = False
    """Measure by how much each arm takes candidates for members, too."""
    depth: of.Flag = False
    """Measure how deep each arm's edit goes, too: what its blocks hand on, put into the \
unmodified model; held against the twin."""
    arms: tuple[of.Words, ...] = ()
    """Names of the arms in which they are tried; by default all of them."""
