"""What tells a picture by its content, wherever it lies."""

from __future__ import annotations

from iarmem_plugin.data.images import Images
from iarmem_plugin.data.readers import named_if_unreadable


def content_of(images: Images, index: int) -> bytes:
    """Return the SHA-256 of a picture's content: of a file its bytes, else its size and values.

    Args:
        images: list of the picture.
        index: position of the picture in it.

    Raises:
        InputError: it cannot be read.
    """
    path = images.paths[index]
    with named_if_unreadable(path):
        return images.reader.picture_sha256(int(images.ids[index]), path)
