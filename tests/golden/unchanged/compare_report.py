"""What was written before a change of the code, compared with what is written now.

``python compare_report.py REPORT GOLDEN`` compares a demo's ``report.json``, and the ``neurons.nc``
beside it, with a golden file, lists what differs, and ends with code 1 if anything does. With
``IARMEM_MAKE_GOLDEN=1`` it writes the golden file instead, and ends with code 1, too. With
``IARMEM_SAME_CPU=1`` image quality must agree as closely as the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

ANY = "<any>"  # in a golden file: something must be there, whatever it is
FOLDER = Path(__file__).parent
MAKES = os.environ.get("IARMEM_MAKE_GOLDEN") == "1"

# Another CPU adds float32 in another order, which moves sums of scores by 1.2e-6 of themselves.
RELATIVE, ABSOLUTE = 1e-4, 1e-6
# Images are drawn token by token, of which a few then fall otherwise; FID and KID of the demo's
# arms moved by up to 2.6 %. README.md says how both were worked out.
QUALITY = 0.05
NEAR_ZERO = 0.005  # KID of few images is as near 0 as its standard error
# A change of a loss is the difference of two sums; a token that falls otherwise is one of hundreds.
ENDS = {r"/losses/[^/]*/\w+$": 1e-4, r"/agreement$": 2e-3}
SAME_CPU = os.environ.get("IARMEM_SAME_CPU") == "1"  # as the golden file's: no such excuse

# time, memory, versions, and what rounding alone decides: something must be there
VOLATILE = {"cpu_seconds", "wall_seconds", "peak_memory_mib", "python", "adapter_version"}
VOLATILE |= {"distribution"}
VOLATILE |= {"near_ties", "flips", "commit"}
# images that the model itself draws: on another CPU a few of their tokens fall otherwise
VOLATILE_INSIDE = {"cpu_seconds_of", "versions", "generated"}


def masked(value: Any) -> Any:
    """Return a value as a golden file has it: what another run or machine changes is `ANY`."""
    if isinstance(value, list):
        return [masked(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: ANY
        if key in VOLATILE
        else dict.fromkeys(one, ANY)
        if key in VOLATILE_INSIDE and isinstance(one, dict)
        else masked(one)
        for key, one in value.items()
    }


def differences(found: Any, golden: Any, place: str = "") -> list[str]:
    """Say what differs, one line each; floats may differ by the tolerance, nothing else may."""
    if golden == ANY and found is not None:
        return []
    if isinstance(found, dict) and isinstance(golden, dict):
        lost = [f"{place}/{name}: is gone" for name in golden if name not in found]
        new = [f"{place}/{name}: is new" for name in found if name not in golden]
        both = [name for name in golden if name in found]
        pairs = [(f"{place}/{name}", found[name], golden[name]) for name in both]
        return lost + new + _all_differences(pairs)
    if isinstance(found, list) and isinstance(golden, list) and len(found) == len(golden):
        numbers = range(len(golden))
        return _all_differences([(f"{place}/{n}", found[n], golden[n]) for n in numbers])
    if isinstance(found, float) and isinstance(golden, float):
        drawn = re.search(r"/quality/\d+/(value|error)$", place) is not None and not SAME_CPU
        relative = QUALITY if drawn else RELATIVE
        absolute = next((one for end, one in ENDS.items() if re.search(end, place)), ABSOLUTE)
        absolute = NEAR_ZERO if drawn else absolute
        same = math.isclose(found, golden, rel_tol=relative, abs_tol=absolute)
    else:
        same = type(found) is type(golden) and found == golden
    return [] if same else [f"{place}: {golden!r} in the golden file, {found!r} now"]


def _all_differences(pairs: list[tuple[str, Any, Any]]) -> list[str]:
    return [line for place, one, other in pairs for line in differences(one, other, place)]


def without_modules(text: str) -> str:
    """Return text without the names of the core's modules, which are no promise."""
    return re.sub(r"\biarmem_plugin(\.\w+)+", "iarmem_plugin.*", text)


def chosen(neurons: xr.DataArray) -> dict[str, Any]:
    """Return a selection's count and the SHA-256 of its booleans, dims (block, neuron)."""
    values = neurons.transpose(..., "block", "neuron").to_numpy().astype(bool)
    return {"count": int(values.sum()), "sha256": hashlib.sha256(values.tobytes()).hexdigest()}


def read_report(file: Path) -> dict[str, Any]:
    """Return a report, and which neurons each arm edited."""
    with xr.open_dataset(file.with_name("neurons.nc"), engine="h5netcdf") as written:
        neurons = written["neurons"].load()
    with xr.open_dataset(file.with_name("extraction.nc"), engine="h5netcdf") as written:
        similarity = written["similarity"].load()
        similarity = similarity[:, written["role"].to_numpy().astype(str) != "generated"]
    names = [str(name) for name in neurons["arm"].to_numpy()]
    return {
        "report": masked(json.loads(file.read_text(encoding="utf-8"))),
        "neurons": {name: chosen(neurons.isel(arm=n)) for n, name in enumerate(names)},
        "mean_similarity": {
            name: float(np.mean(similarity.isel(arm=n).to_numpy(), dtype=np.float64))
            for n, name in enumerate(names)
        },
    }


def same(name: str, found: Any, part: str | None = None) -> list[str]:
    """Say what differs from a golden file, or from one part of it.

    With ``IARMEM_MAKE_GOLDEN=1`` that is written anew, and said, so that no test passes by it.
    """
    return compared(FOLDER / name, found, part)


def compared(file: Path, found: Any, part: str | None = None) -> list[str]:
    """Say what differs from a golden file, wherever it is; see `same`."""
    golden = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not MAKES:
        return differences(found, golden if part is None else golden.get(part))
    whole = found if part is None else {**golden, part: found}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    file.write_text(f"{text}\n", encoding="utf-8")
    return [f"{file.name} was made anew; see `git diff`, and run without IARMEM_MAKE_GOLDEN"]


def main(report: Path, golden: Path) -> int:
    """Print how a report differs from a golden file; return the exit code."""
    lines = compared(golden, read_report(report))
    print(*lines or [f"{report.name} is as {golden.name} has it"], sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
