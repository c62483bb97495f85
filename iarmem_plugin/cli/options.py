"""The options that the commands of `iarmem` share, and bands of tokens as a user writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown

LONGEST_NAME = 60
_SPAN = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


class Precision(StrEnum):
    """Precision of a model's weights."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class OnBadImage(StrEnum):
    """What to do with a picture that cannot be read."""

    error = "error"
    skip = "skip"


Model = Annotated[str, typer.Argument(help="A model listed by `iarmem models`.")]
ImageSource = Annotated[
    Path,
    typer.Option(
        "--images",
        help="Folder with a folder per class, an .npz file, or a .txt with a path a line.",
    ),
]
ImageRoot = Annotated[
    Path | None, typer.Option(help="Folder that the paths in a .txt are in, if not the .txt's own.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Weights = Annotated[Path | None, typer.Option(help="File of the transformer's weights.")]
Tokenizer = Annotated[Path | None, typer.Option(help="File of the tokenizer's weights.")]
Files = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        metavar="ROLE=PATH",
        help='A further file that the model needs: "text encoder=t5.bin". May be repeated.',
    ),
]
Device = Annotated[str, typer.Option(help="Such as cpu, cuda or cuda:1.")]
Dtype = Annotated[Precision, typer.Option(help="Precision of the weights.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the tokenizer; see docs/speed.md for when.")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="A metric listed by `iarmem plugins`, be it with options: NAME:KEY=VALUE; give "
        "several to share one pass; unitmem if none is given.",
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        help="Keep the activations in this .zarr folder or at this URL, too; resumes one that is "
        "there."
    ),
]
KeepBits = Annotated[
    int | None,
    typer.Option(min=1, max=23, help="Mantissa bits to keep in the store; 13 halve the disk."),
]
BreakLock = Annotated[
    bool,
    typer.Option("--break-lock", help="Resume a store whose lock a killed run has left behind."),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Discard what an unfinished run without a store has left."),
]
RestartArms = Annotated[
    bool, typer.Option("--restart", help="Discard the arms that an unfinished run has finished.")
]
Slab = Annotated[
    int, typer.Option(min=1, help="Images that are finished together, and lost if a run is killed.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in one pass of the model.")]
ViewCount = Annotated[int, typer.Option("--views", min=1, help="Augmented passes an image.")]
Bands = Annotated[
    list[str] | None,
    typer.Option(
        "--band",
        metavar="NAME=TOKENS",
        help="Score the mean over the activations that predict these tokens, counted from 1, "
        'in place of the model\'s scales: "first row=1-16". May be repeated.',
    ),
]
CheckBatching = Annotated[
    int,
    typer.Option(
        min=0,
        help="Complete so many candidates in batches and one by one, and report the difference.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything drawn at random.")]
Classes = Annotated[
    Path | None, typer.Option(help="File that maps each class folder's name to its index.")
]
BadImage = Annotated[
    OnBadImage,
    typer.Option("--on-bad-image", help="Stop at pictures that do not open, or skip them."),
]
VerifyImages = Annotated[
    bool,
    typer.Option(
        "--verify-images",
        help="Read every picture before the model is loaded; else a damaged one ends the run when "
        "it is reached.",
    ),
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that decode pictures; 0: this one.")]
ImagesPerClass = Annotated[
    int | None, typer.Option(min=1, help="Use so many pictures of each class, drawn at random.")
]
ImagesFraction = Annotated[
    float | None, typer.Option(help="Use this share of the pictures, equally many of each class.")
]
SubsetSeed = Annotated[int, typer.Option(min=0, help="Seed of the draw of pictures.")]
SubsetPart = Annotated[
    int, typer.Option(min=0, help="Which of the subsets of this size that share no picture.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
Fraction = Annotated[float, typer.Option(help="Share of neurons to edit, in (0, 1].")]
Scores = Annotated[Path, typer.Option(help="Folder or file that `iarmem localize` wrote.")]
RandomSets = Annotated[
    int, typer.Option(min=0, help="Random neuron sets of the same size, to compare with.")
]
PerClass = Annotated[
    int,
    typer.Option(
        min=1,
        help="Images of each class to try, the best predicted first; of all, without classes.",
    ),
]
CandidateSource = Annotated[
    Path | None, typer.Option("--candidates", help="Images to try, instead of ranking --images.")
]
RankingFile = Annotated[
    Path | None,
    typer.Option(
        "--ranking", help="File that `iarmem rank` wrote of --images, instead of ranking them here."
    ),
]
NearDuplicates = Annotated[
    float | None,
    typer.Option(
        help="Correlation above which two candidates are near-duplicates; tells their clusters."
    ),
]
RankingOut = Annotated[Path, typer.Option("--out", help="File to write, such as ranking.nc.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder for tokens and scores, which stays and is used again; by default one beside "
        "--out, which goes in the end."
    ),
]
Chunk = Annotated[
    int, typer.Option(min=1, help="Images that are finished together, and lost if a run is killed.")
]
HeldOut = Annotated[
    Path | None,
    typer.Option(
        "--held-out",
        help="Images the model never saw: every other one fixes the threshold, the rest are "
        "reported.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Similarity above which an image counts as extracted, in place of the measure's own; "
        "all of --held-out are then reported, unless half of them fit the held-out loss."
    ),
]
FewHeldOut = Annotated[
    bool,
    typer.Option("--few-held-out", help="Fix the threshold on fewer than 20 images, too."),
]
Recalibrate = Annotated[
    bool,
    typer.Option(
        help="Fix thresholds anew in each arm, too, where images are held out; it costs as much as "
        "completing half of --held-out in every arm."
    ),
]
Generations = Annotated[
    int,
    typer.Option(
        min=0, help="Images that the unmodified model draws freely, as candidates of their own."
    ),
]
Intervention = Annotated[
    str,
    typer.Option(
        help="How to edit them, be it with options: NAME:KEY=VALUE,KEY=VALUE, which "
        "`iarmem plugins NAME` lists."
    ),
]
Selector = Annotated[
    str,
    typer.Option(
        help="Which neurons to edit, be it with options; or what scores them by contrast, such as "
        "gradient-weight: then the highest, and each half of the candidates is tested with neurons "
        "that were chosen on the other."
    ),
]
ContrastWith = Annotated[
    Path | None,
    typer.Option(
        help="Images that candidates are contrasted with; by default the held-out images that are "
        "not reported."
    ),
]
Similarity = Annotated[
    str, typer.Option(help="Compares completion and target, be it with options.")
]
Quality = Annotated[
    list[str] | None,
    typer.Option(
        help="Measures what an edit costs: held-out-loss, the default where --held-out is given; "
        "or images, such as fid:extractor=FILE. May be given once for each of the two."
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        help="Real images to compare quality with, if not --images; or an .npz file of their "
        "features from `iarmem features`, or of mu and sigma, as ADM's statistics have them."
    ),
]
Generated = Annotated[int, typer.Option(min=2, help="Images to generate for the quality.")]
Seeds = Annotated[
    int,
    typer.Option(min=1, help="How often to generate them, each time with the next sampling seed."),
]
Temperature = Annotated[
    str | None,
    typer.Option(
        help="Sampling temperature of generated images, a number, or tuned: of 0.4 to 1.2, the one "
        "with the least KID against half of --held-out, on the unmodified model.",
        show_default="as published",
    ),
]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model a user means, from which files, where and how precise.

    Attributes:
        name: as listed by ``iarmem models``.
        files: file of each role, such as ``"weights"``; None where it is not named.
        device: device as torch names it.
        dtype: precision of the weights.
        compile: compile the tokenizer.
    """

    name: str
    files: Mapping[str, Path | None]
    device: str
    dtype: Precision
    compile: bool


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How pictures are read, wherever they are.

    Attributes:
        root: folder that the paths in a list are in; None for the list's own.
        classes: file that maps each class folder's name to its index.
        on_bad: what to do with pictures that do not open.
        workers: processes that decode pictures; 0 for this one.
    """

    root: Path | None
    classes: Path | None
    on_bad: OnBadImage
    workers: int


def read_files(
    weights: Path | None, tokenizer: Path | None, others: Iterable[str]
) -> dict[str, Path | None]:
    """Return the file of each role.

    Args:
        weights: file of the transformer's weights.
        tokenizer: file of the tokenizer's weights.
        others: further files, each a role, an equals sign and a path.

    Raises:
        InputError: a text of another form, or a role that is named twice.

    Example:
        >>> read_files(None, None, ["text encoder=t5.bin"])["text encoder"].name
        't5.bin'
    """
    files = {"weights": weights, "tokenizer": tokenizer}
    for text in others:
        role, _, path = text.partition("=")
        role = role.strip()
        if not role or not path or files.get(role) is not None:
            raise InputError(
                f"--file {shown(text, 120)!r} was given; write ROLE=PATH, such as "
                "'text encoder=t5.bin', each role once"
            )
        files[role] = Path(path)
    return files


def read_bands(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Read bands such as ``"first row=1-16"`` or ``"ends=1,256"``.

    Args:
        texts: each a name, an equals sign, and numbers or spans of predicted tokens, from 1.

    Returns:
        the tokens of each band by its name.

    Raises:
        InputError: a text of another form, or two bands of one name.

    Example:
        >>> read_bands(["ends=1-2,256"])
        {'ends': (1, 2, 256)}
    """
    bands: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, spans = text.rpartition("=")
        name = name.strip()
        if not name or name in bands:
            raise InputError(
                f"band {shown(text, 120)!r} has no name of its own; write NAME=TOKENS, "
                "such as 'first row=1-16', each name once"
            )
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise InputError(
                f"band {shown(text, 120)!r} has a name that cannot be shown; give up to "
                f"{LONGEST_NAME} signs, all of which can be printed"
            )
        bands[name] = tuple(token for span in spans.split(",") for token in _tokens(text, span))
    return bands


def _tokens(text: str, span: str) -> range:
    found = _SPAN.fullmatch(span.strip())
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise InputError(
            f"band {shown(text, 120)!r} has {shown(span.strip(), 60)!r}, which is not a span of "
            "tokens; write a number or FIRST-LAST, counted from 1, with commas between them"
        )
    return range(int(found[1]), int(found[2] or found[1]) + 1)
