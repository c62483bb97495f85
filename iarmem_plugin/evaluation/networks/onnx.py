"""Descriptors of pictures by a network in an ONNX file."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.networks.pictures import BY_IMAGENET, imagenet_normalised
from iarmem_plugin.evaluation.quality import to_uint8
from iarmem_plugin.text import shown
from iarmem_plugin.typing import Tensor

_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}
_LAYOUTS = {1: ("NCHW", (0, 1, 2, 3)), 3: ("NHWC", (0, 2, 3, 1))}  # by the axis of the colours
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxNetwork:
    """RGB in [0, 1] in, descriptors [image, feature] out; it runs on the CPU.

    Layout and type of its pictures, and their number and side where these are fixed, are read from
    its one input. A fixed number is filled up with the last picture.

    Args:
        data: what is in the file.
        path: how messages call it.

    Attributes:
        side: height and width that pictures must have; None for any.

    Raises:
        InputError: it is no ONNX network of pictures, or onnxruntime is not installed.
    """

    def __init__(self, data: bytes, path: Path) -> None:
        self._path = path
        with self._refused():
            self._session = _session(data)
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        colours = [axis for axis in _LAYOUTS if len(shape) == 4 and shape[axis] == 3]
        sides = {one for axis, one in enumerate(shape) if axis and axis not in colours}
        fixed = {one for one in sides if isinstance(one, int)}
        if len(colours) != 1 or len(fixed) > 1 or inputs[0].type not in _TYPES:
            raise self._unlike_pictures()
        self._layout, self._axes = _LAYOUTS[colours[0]]
        self._dtype = np.dtype(_TYPES[inputs[0].type])
        self._number = shape[0] if isinstance(shape[0], int) else None
        self.side: int | None = fixed.pop() if fixed else None

    @property
    def kind(self) -> str:
        """What runs it, and how it takes pictures."""
        runtime = sys.modules["onnxruntime"].__version__
        return f"ONNX ({self._layout}, {self._dtype}) by onnxruntime {runtime}"

    @property
    def normalisation(self) -> str:
        """How colours are normalised: networks of 8-bit pictures do it themselves."""
        return "in the file" if self._dtype == np.uint8 else BY_IMAGENET

    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image feature"]:
        """Return the descriptors of images."""
        import torch

        takes_8_bit = self._dtype == np.uint8
        ready = to_uint8(images.clamp(0, 1)) if takes_8_bit else imagenet_normalised(images)
        pixels = ready.permute(self._axes).cpu().numpy().astype(self._dtype)
        number = self._number or len(pixels)
        starts = range(0, len(pixels), number)
        rows = [self._run(pixels[start : start + number], number) for start in starts]
        return torch.from_numpy(np.concatenate(rows)).to(images.device)

    def try_out(self, side: int) -> None:
        """Refuse a network that makes no descriptors of two black pictures."""
        import torch

        with self._refused():
            self(torch.zeros(2, 3, side, side))

    def _run(self, pixels: np.ndarray, number: int) -> np.ndarray:
        filled = np.concatenate((pixels, np.repeat(pixels[-1:], number - len(pixels), axis=0)))
        given, asked = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        (rows,) = self._session.run([asked], {given: np.ascontiguousarray(filled)})
        is_array = isinstance(rows, np.ndarray) and rows.dtype.kind == "f"
        if not is_array or rows.shape[:-1] != (number,):
            raise InputError(
                f"{self._path} returns no descriptor [image, feature]; it is not an SSCD network"
            )
        found: np.ndarray = rows[: len(pixels)]
        return found

    def _unlike_pictures(self) -> InputError:
        inputs = self._session.get_inputs()
        given = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        return InputError(
            f"{self._path} takes {shown(given, 160) or 'nothing'}; expected one input of pictures, "
            "[image, 3, side, side] or [image, side, side, 3], of uint8 or floating-point numbers"
        )

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except _errors() as error:
            first = shown(str(error).strip().partition("\n")[0], 200)
            raise InputError(
                f"{self._path} is not an ONNX network that can be run: {first}; give one file "
                "that holds its weights, too"
            ) from error


def _session(data: bytes) -> Any:
    """Return what runs a network, in as many threads as torch has.

    Weights beside the file would have no part in its digest, so that they are looked for in an
    empty folder, and the file is refused.
    """
    import torch

    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            'an .onnx file needs onnxruntime; install it with: pip install "iarmem[onnx]"'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3  # errors, which are raised
    with tempfile.TemporaryDirectory() as empty:
        options.add_session_config_entry(_WEIGHTS_FOLDER, empty)
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _errors() -> tuple[type[Exception], ...]:
    """Return the classes of onnxruntime's errors, which have no base of their own."""
    state = sys.modules.get("onnxruntime.capi.onnxruntime_pybind11_state")
    known = [] if state is None else list(vars(state).values())
    own = [one for one in known if isinstance(one, type) and issubclass(one, Exception)]
    return (*own, RuntimeError, ValueError)
