"""Captures into a store, and says what it holds, in whatever Python this is.

``python other_python.py STORE PICTURES``: prints one JSON object; see test_pythons.py.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from iarmem_plugin import ActivationStore
from iarmem_plugin.cli import app

MODEL = "var-organism"


def capture(store: Path, pictures: Path) -> dict[str, str]:
    """Begin or resume a store of 2 slabs and a half; return digests from before and after."""
    before = digest(store) if store.exists() else ""
    files = ["--images", str(pictures), "--out", f"{store}-out", "--store", str(store)]
    app(["localize", MODEL, *files, "--views", "1", "--slab", "2", "--json"], standalone_mode=False)
    return {"python": sys.version, "before": before, "after": digest(store)}


def digest(store: Path) -> str:
    """Return the SHA-256 of all values that are captured, and of what they are of."""
    data = ActivationStore.open(store).dataset(partial="drop")
    found = hashlib.sha256(str(data.sizes).encode())
    for name in ("activation", *map(str, data.coords)):
        values = data[name].to_numpy()
        plain = values.dtype.kind in "bif"
        found.update(values.tobytes() if plain else json.dumps(values.tolist()).encode())
    return found.hexdigest()


if __name__ == "__main__":
    print(json.dumps(capture(Path(sys.argv[1]), Path(sys.argv[2]))))
