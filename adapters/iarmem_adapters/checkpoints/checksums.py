"""The checksums that torch.save writes beside the data, compared with the data."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from iarmem_plugin.errors import WeightsError
from iarmem_plugin.text import shown

_AT_ONCE = 2**20  # bytes
_DAMAGED = (
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # it is encrypted, or compressed in an unknown way
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def check_sums(path: Path) -> None:
    """Read a zip archive, as torch.save writes it, and compare each entry with its checksum.

    Other files have none, and pass; so do entries without, as where torch was told to write none.

    Raises:
        WeightsError: something in the file changed after it was written.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) < len(entries):
                raise zipfile.BadZipFile("two entries of one name")
            for entry in entries:
                if entry.CRC:
                    _read(archive, entry)
    except _DAMAGED as error:
        raise WeightsError(
            f"{path} is damaged: {shown(error, 120)}; fetch it again, or save it anew with "
            "torch.save if it is as it should be"
        ) from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    with archive.open(entry) as content:
        while content.read(_AT_ONCE):
            pass
