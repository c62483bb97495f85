"""SSCD's network from an ONNX file, beside numpy's numbers for small networks of its kind."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.similarity import SSCD
from iarmem_plugin.interfaces import Completion
from iarmem_plugin.plugins.create import create

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
WEIGHTS = np.random.default_rng(0).normal(size=(3, 5))
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
}
NCHW, NHWC = ("n", 3, "h", "w"), ("n", "h", "w", 3)


def network(
    file: Path, shape: tuple[int | str, ...] = NCHW, dtype: str = "float32", *, ends: str = "rows"
) -> Path:
    """Write a network: the mean of each colour (as in [0, 1] if 8 bit), then linear, in float64."""
    axes = [axis for axis, size in enumerate(shape) if axis and size != 3]
    scale = np.array(255.0 if dtype == "uint8" else 1.0)
    kept = {"axes": np.array(axes, np.int64), "scale": scale, "weights": WEIGHTS}
    nodes = [
        helper.make_node("Cast", ["pictures"], ["numbers"], to=TensorProto.DOUBLE),
        helper.make_node("Div", ["numbers", "scale"], ["unit"]),
        helper.make_node("ReduceMean", ["unit", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["linear"]),
        helper.make_node("Cast", ["linear"], ["rows"], to=TensorProto.FLOAT),
    ]
    made = {"rows": (TensorProto.FLOAT, 2), "unit": (TensorProto.DOUBLE, 4)}[ends]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("pictures", TYPES[dtype], shape)],
        [helper.make_tensor_value_info(ends, made[0], [None] * made[1])],
        [numpy_helper.from_array(value, name) for name, value in kept.items()],
    )
    return written(file, graph)


def written(file: Path, graph: onnx.GraphProto, **options: object) -> Path:
    sets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=9), file, **options)
    return file


def pictures(count: int = 3, height: int = 40, width: int = 40, seed: int = 0) -> torch.Tensor:
    drawn = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return (drawn * 255).round() / 255


def shown(images: torch.Tensor) -> Completion:
    return Completion(images, torch.zeros(len(images), 0, dtype=torch.int64))


def compared(measure: SSCD, first: torch.Tensor, second: torch.Tensor) -> list[float]:
    found: list[float] = measure.compare(shown(first), shown(second)).tolist()
    return found


def cosine(first: torch.Tensor, second: torch.Tensor, *, normalised: bool) -> np.ndarray:
    """Return what the network's descriptors give, by numpy."""
    sides = []
    for images in (first, second):
        means = images.double().numpy().mean(axis=(2, 3))
        sides.append(((means - MEAN) / STD if normalised else means) @ WEIGHTS)
    norms = np.linalg.norm(sides[0], axis=1) * np.linalg.norm(sides[1], axis=1)
    return (sides[0] * sides[1]).sum(axis=1) / norms


def flat(*colours: tuple[float, float, float]) -> torch.Tensor:
    """Pictures of one colour each, of whole levels, which no resizing changes."""
    levels = (torch.tensor(colours) * 255).round() / 255
    return levels[:, :, None, None].expand(-1, 3, 40, 40)


FIRST = flat((0.9, 0.2, 0.1), (0.3, 0.3, 0.8), (0.5, 0.6, 0.7))
SECOND = flat((0.8, 0.3, 0.1), (0.9, 0.1, 0.2), (0.1, 0.6, 0.2))


@pytest.mark.parametrize("shape", [NCHW, NHWC], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8"])
def test_every_layout_and_type_gives_what_numpy_does(
    tmp_path: Path, shape: tuple[int | str, ...], dtype: str
) -> None:
    measure = SSCD(network(tmp_path / "small.onnx", shape, dtype))
    expected = cosine(FIRST, SECOND, normalised=dtype != "uint8")
    # 1e-6: float32 pictures and descriptors; 1e-3: pictures rounded to half precision
    tolerance = 1e-3 if dtype == "float16" else 1e-6
    np.testing.assert_allclose(compared(measure, FIRST, SECOND), expected, rtol=0, atol=tolerance)
    assert f"({'NCHW' if shape == NCHW else 'NHWC'}, {dtype})" in measure.provenance["network"]
    mine = {"uint8": "in the file"}.get(dtype, "ImageNet's mean and deviation")
    assert measure.provenance["normalisation"] == mine


def test_it_is_torchscripts_number_for_the_same_network(tmp_path: Path) -> None:
    first, second = pictures(), pictures(seed=1)

    class Means(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weights", torch.from_numpy(WEIGHTS))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.double().mean(dim=(2, 3)) @ self.weights

    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.script(Means()).save(str(tmp_path / "small.pt"))
    scripted = SSCD(tmp_path / "small.pt")
    # 1e-6: float32 descriptors
    assert compared(SSCD(network(tmp_path / "small.ONNX")), first, second) == pytest.approx(
        compared(scripted, first, second), abs=1e-6
    )


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_fixed_number_of_pictures_is_filled_up(tmp_path: Path, number: int) -> None:
    first, second = pictures(3), pictures(3, seed=1)
    fixed = SSCD(network(tmp_path / "fixed.onnx", (number, *NCHW[1:])))
    free = SSCD(network(tmp_path / "free.onnx"))
    assert compared(fixed, first, second) == pytest.approx(compared(free, first, second), abs=1e-6)


def sizes(file: Path) -> Path:
    """Write a network whose descriptor is (height, width, 1)."""
    nodes = [
        helper.make_node("Shape", ["pictures"], ["shape"], start=2),
        helper.make_node("Cast", ["shape"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["numbers", "one"], ["row"], axis=0),
        helper.make_node("ReduceMean", ["pictures", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "row"], ["rows"]),
    ]
    kept = {
        "one": np.ones(1, np.float32),
        "zero": np.zeros(1, np.float32),
        "axes": np.array([2, 3]),
    }
    graph = helper.make_graph(
        nodes,
        "sizes",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, NCHW)],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value, name) for name, value in kept.items()],
    )
    return written(file, graph)


@pytest.mark.parametrize(
    ("side", "size", "expected"),
    [
        (None, "320 x 320", (320, 320)),
        (320, "320 x 320", (320, 320)),
        (288, "shorter side 288", (288, 432)),
    ],
)
def test_the_side_is_320_or_the_shorter_one_288(
    tmp_path: Path, side: int | None, size: str, expected: tuple[int, int]
) -> None:
    option = "" if side is None else f",side={side}"
    measure = create("similarity", f"sscd:file={sizes(tmp_path / 'sizes.onnx')}{option}")
    assert isinstance(measure, SSCD)
    (row,) = measure._descriptors(pictures(1, height=40, width=60)).double()
    assert (row[:2] / row[2]).round().tolist() == list(expected)
    assert measure.provenance["resize"] == f"{size}, bilinear, antialiased, in float32"


def test_a_side_that_the_file_fixes_is_taken(tmp_path: Path) -> None:
    file = network(tmp_path / "fixed.onnx", ("n", 3, 288, 288))
    for measure in (SSCD(file), SSCD(file, side=288)):
        assert measure.provenance["resize"].startswith("288 x 288, ")
        assert compared(measure, pictures(height=30), pictures(height=30)) == pytest.approx(
            [1.0] * 3
        )
    with pytest.raises(InputError, match="made for pictures of 288 x 288, and side=320 was given"):
        SSCD(file, side=320)


def test_pillow_resizes_as_pillow_does(tmp_path: Path) -> None:
    from PIL import Image

    images = pictures(2, height=50, width=30)
    measure = SSCD(network(tmp_path / "small.onnx", NHWC, "uint8"), side=288, resize="pillow")
    expected = []
    for one in images:
        drawn = Image.fromarray((one * 255).round().byte().permute(1, 2, 0).numpy())
        small = np.asarray(drawn.resize((288, 480), Image.Resampling.BILINEAR), np.float64)
        row = small.mean(axis=(0, 1)) / 255 @ WEIGHTS
        expected.append(row / np.linalg.norm(row))
    # 1e-6: float32 descriptors
    np.testing.assert_allclose(measure._descriptors(images), expected, rtol=0, atol=1e-6)
    assert measure.provenance["resize"] == "shorter side 288, Pillow's bilinear filter, 8 bit"


def test_the_digest_that_is_asked_for_is_that_of_the_file(tmp_path: Path) -> None:
    file = network(tmp_path / "small.onnx")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert SSCD(file, sha256=digest).provenance["sha256"] == digest
    with pytest.raises(InputError, match=f"SHA-256 {digest}, not {'0' * 64}"):
        SSCD(file, sha256="0" * 64)


def test_it_runs_in_as_many_threads_as_torch(tmp_path: Path) -> None:
    options = SSCD(network(tmp_path / "small.onnx"))._network._session.get_session_options()
    assert options.intra_op_num_threads == torch.get_num_threads()
    assert options.inter_op_num_threads == 1


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x07"])
def test_what_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.onnx is not an ONNX network that can be run: "):
        SSCD(tmp_path / "bad.onnx")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (("n", 3, "t", "h", "w"), "float32"),
        (("n", "c", "h", "w"), "float32"),
        (("n", 3, "h", 3), "float32"),
        (("n", 4, "h", "w"), "float32"),
        (("n", 3, 288, 320), "float32"),
        (NCHW, "int32"),
    ],
)
def test_an_input_unlike_pictures_is_refused(
    tmp_path: Path, shape: tuple[int | str, ...], dtype: str
) -> None:
    with pytest.raises(InputError, match=r"takes pictures tensor\(.*; expected one input of pict"):
        SSCD(network(tmp_path / "odd.onnx", shape, dtype))


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(one, TensorProto.FLOAT, NCHW) for one in "ab"]
    made = helper.make_tensor_value_info("c", TensorProto.FLOAT, NCHW)
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "two", inputs, [made])
    with pytest.raises(InputError, match=r"takes a tensor.*, b tensor.*; expected one input"):
        SSCD(written(tmp_path / "two.onnx", graph))


def test_a_network_that_makes_no_descriptors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"returns no descriptor \[image, feature\]"):
        SSCD(network(tmp_path / "odd.onnx", ends="unit"))


def test_weights_beside_the_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no part in the digest; onnxruntime would read them from the current folder."""
    whole = onnx.load(network(tmp_path / "whole.onnx"))
    onnx.save(
        whole, tmp_path / "parted.onnx", save_as_external_data=True, location="w", size_threshold=50
    )
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / "w").stat().st_size >= WEIGHTS.nbytes
    with pytest.raises(InputError, match="give one file that holds its weights, too"):
        SSCD(tmp_path / "parted.onnx")


def test_without_onnxruntime_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = network(tmp_path / "small.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r'needs onnxruntime.*pip install "iarmem\[onnx\]"'):
        SSCD(file)
