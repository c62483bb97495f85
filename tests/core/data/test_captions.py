"""Captions, and pictures without classes: in and out of each source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions, open_images
from iarmem_plugin.errors import InputError

from .conftest import noise, tree

PATHS = ("0/a.png", "0/b.png", "1/c.png")
CAPTIONS = ("a cat", "ein Hund, zwei Hunde", "猫 #3")
PIXELS = np.stack([noise(4, 4, seed) for seed in range(3)])
LABELS = np.array([0, 0, 1])


def captioned(root: Path, *paths: str) -> Path:
    """Draw pictures, and write a caption beside each."""
    tree(root, *paths)
    for path, caption in zip(paths, CAPTIONS, strict=True):
        (root / path).with_suffix(".txt").write_text(f"{caption}\n", encoding="utf-8")
    return root


class Pairs:
    """Items of a picture, and what follows it."""

    def __init__(self, *rest: object) -> None:
        self.rest = rest

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> object:
        after = [one[index] for one in self.rest]  # type: ignore[index]  # sequences
        return (Image.fromarray(PIXELS[index]), *after)


def from_folder(root: Path) -> Images:
    return Images.from_folder(captioned(root, *PATHS))


def from_list(root: Path) -> Images:
    tree(root, *PATHS)
    lines = [f"{path}\t\t{text}" for path, text in zip(PATHS, CAPTIONS, strict=True)]
    (root / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    return Images.from_list(root / "list.txt")


def beside_a_list(root: Path) -> Images:
    captioned(root, *PATHS)
    (root / "list.txt").write_text("".join(f"{path}\n" for path in PATHS))
    return Images.from_list(root / "list.txt")


def from_npz(root: Path) -> Images:
    np.savez(root / "x.npz", images=PIXELS, labels=LABELS, captions=CAPTIONS, names=PATHS)
    return Images.from_npz(root / "x.npz")


def from_arrays(root: Path) -> Images:
    padded = [f" {caption} " for caption in CAPTIONS]
    return Images.from_arrays(PIXELS, LABELS, names=PATHS, captions=padded)


def from_items(root: Path) -> Images:
    items = Pairs(LABELS.tolist(), [7, 8, 9], CAPTIONS)
    return Images.from_dataset(items, labels=LABELS, names=PATHS, captions="items")


def from_a_dataset(root: Path) -> Images:
    items = Pairs(LABELS.tolist())
    items.captions = list(CAPTIONS)  # type: ignore[attr-defined]  # as datasets may have it
    return Images.from_dataset(items, labels=LABELS, names=PATHS)


SOURCES = [
    from_folder,
    from_list,
    beside_a_list,
    from_npz,
    from_arrays,
    from_items,
    from_a_dataset,
]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_may_give_captions_which_a_written_list_gives_back(
    tmp_path: Path, source: Callable[[Path], Images]
) -> None:
    images = source(tmp_path)
    assert images.paths == PATHS
    assert images.captions == CAPTIONS
    assert images.labels.tolist() == [0, 0, 1]
    images.write_list(tmp_path / "written")
    again = Images.from_list(tmp_path / "written")
    assert (again.paths, again.captions) == (images.paths, images.captions)
    assert again.labels.tolist() == images.labels.tolist()
    assert again.digest == images.digest


def test_captions_are_told_apart_by_the_digest_and_no_captions_are_as_ever() -> None:
    plain = Images.from_arrays(PIXELS, LABELS, names=PATHS)
    one, other = (Images.from_arrays(PIXELS, LABELS, names=PATHS, captions=c * 3) for c in "ab")
    assert len({plain.digest, one.digest, other.digest}) == 3
    lines = b"0/a.png\x000\n0/b.png\x000\n1/c.png\x001\n"
    assert plain.digest == hashlib.sha256(lines).hexdigest()


def test_captions_go_with_their_pictures_through_subsets_draws_and_joins() -> None:
    images = Images.from_arrays(PIXELS, LABELS, captions=CAPTIONS)
    assert images.subset([2, 0]).captions == (CAPTIONS[2], CAPTIONS[0])
    assert images.balanced(1, seed=1).captions in [(CAPTIONS[0], CAPTIONS[2]), CAPTIONS[1:]]
    assert images.join(images).captions == CAPTIONS * 2
    assert images.join(Images.from_arrays(PIXELS, LABELS)).captions is None
    assert repr(images) == "Images(3 pictures, 2 classes, captions)"


def test_a_picture_without_a_caption_among_others_is_named(tmp_path: Path) -> None:
    captioned(tmp_path, *PATHS)
    (tmp_path / "0/b.txt").unlink()
    with pytest.warns(match=r"not used: picture '0/b.png' has no caption .* 2 others have"):
        Images.from_folder(tmp_path)
    (tmp_path / "list").write_text("0/a.png\t0\ta cat\n1/c.png\t1\n")
    with pytest.raises(InputError, match=r"none for picture '1/c.png'"):
        Images.from_list(tmp_path / "list")


@pytest.mark.parametrize(
    "text", [b"0 0.5 0.5 1 1\n3 0.1 0.1 1 1\n", b"", b"\xff\xfe\x00", b"x" * 70000]
)
def test_what_other_tools_leave_beside_pictures_is_no_caption(tmp_path: Path, text: bytes) -> None:
    captioned(tmp_path, *PATHS)
    plain = Images.from_arrays(PIXELS, LABELS, names=PATHS)
    (tmp_path / "0/b.txt").write_bytes(text)
    with pytest.warns(match="the .txt beside the pictures are not used: "):
        found = Images.from_folder(tmp_path)
    assert found.captions is None
    assert found.digest == plain.digest


def test_files_of_captions_are_not_said_to_be_left_out(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    captioned(tmp_path, *PATHS)
    Images.from_folder(tmp_path, num_classes=2)
    assert [str(one.message) for one in recwarn] == []


@pytest.mark.parametrize(
    ("caption", "problem"),
    [
        ("a\tb", "has a tab"),
        ("a\nb", "has a tab, a new line"),
        ("  ", "is empty"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_caption_that_a_list_cannot_hold_is_refused(caption: object, problem: str) -> None:
    given = [*CAPTIONS[:2], caption]
    with pytest.raises(InputError, match=f"caption of picture '000002' .*{problem}"):
        Images.from_arrays(PIXELS, LABELS, captions=given)  # type: ignore[arg-type]  # as users may


def test_too_few_captions_are_refused() -> None:
    with pytest.raises(InputError, match="2 captions and 3 pictures"):
        Images.from_arrays(PIXELS, LABELS, captions=CAPTIONS[:2])


def test_items_without_captions_are_refused_where_they_are_asked_for() -> None:
    with pytest.raises(InputError, match="item 0 of the dataset has no caption"):
        Images.from_dataset(Pairs(LABELS.tolist()), labels=LABELS, captions="items")


def unlabelled_folder(root: Path) -> Images:
    return Images.from_folder(tree(root, "a.png", "deep/er/b.png", "c/d.png"), labelled=False)


def unlabelled_list(root: Path) -> Images:
    tree(root, "a.png", "deep/er/b.png", "c/d.png")
    (root / "list").write_text("a.png\t7\ndeep/er/b.png\nc/d.png\n")
    return Images.from_list(root / "list", labelled=False)


def unlabelled_npz(root: Path) -> Images:
    np.savez(root / "x.npz", images=PIXELS)
    return Images.from_npz(root / "x.npz", labelled=False)


def unlabelled_items(root: Path) -> Images:
    return Images.from_dataset([Image.fromarray(one) for one in PIXELS], labelled=False)


@pytest.mark.parametrize(
    "source",
    [
        unlabelled_folder,
        unlabelled_list,
        unlabelled_npz,
        lambda _: Images.from_arrays(PIXELS),
        unlabelled_items,
        lambda _: Images.from_dataset(Pairs(["x"] * 3), labelled=False),
    ],
)
def test_pictures_may_have_no_classes_and_nothing_guesses_one(
    tmp_path: Path, source: Callable[[Path], Images]
) -> None:
    images = source(tmp_path)
    assert not images.labelled
    assert images.labels.tolist() == [-1] * 3
    assert images.classes == {}
    assert images.load(1).mode == "RGB"
    assert repr(images).startswith("Images(3 pictures, no classes")
    images.write_list(tmp_path / "written")
    again = Images.from_list(tmp_path / "written", labelled=False)
    assert (again.paths, again.digest) == (images.paths, images.digest)
    assert not again.subset([1]).labelled
    with pytest.raises(InputError, match="cannot be drawn class by class"):
        images.balanced(1)
    with pytest.raises(InputError, match="cannot be joined"):
        images.join(Images.from_arrays(PIXELS, LABELS))
    assert images.join(again).labels.tolist() == [-1] * 6


def test_a_picture_and_its_caption_are_an_item_where_there_are_no_classes() -> None:
    images = Images.from_dataset(Pairs(CAPTIONS), labelled=False, captions="items")
    assert images.captions == CAPTIONS


def test_a_folder_of_pictures_is_opened_where_no_class_is_told(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "b/c.png")
    with pytest.raises(InputError, match="pictures outside any class folder"):
        open_images(tmp_path)
    assert open_images(tmp_path, labelled=False).paths == ("a.png", "b/c.png")


def test_what_a_model_must_be_told_is_there_or_refused_in_words() -> None:
    nothing = Images.from_arrays(PIXELS)
    all_told = Images.from_arrays(PIXELS, LABELS, captions=CAPTIONS)
    for conditions in ({"label"}, {"text"}, {"label", "text", "image"}, set[str]()):
        check_conditions(all_told, conditions, 2)
    check_conditions(nothing, {"image"}, None)
    with pytest.raises(InputError, match="told the class of each picture, and these have none"):
        check_conditions(nothing, {"label", "text"}, 2)
    with pytest.raises(InputError, match="told a caption of each picture, and these have none"):
        check_conditions(nothing, {"text"}, None)
    with pytest.raises(InputError, match="'000002' has label 1, which is outside the classes"):
        check_conditions(all_told, {"label"}, 1)
