"""What image classifiers export: raw images in, probabilities out; and an 8-bit copy, compared on held-out images."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.export_spec import ExportSpec
from core.parity import open_session
from core.quantize import HeldOut, export_int8, quantize_static
from core.vision.image_set import ImageSet
from core.vision.preprocessing import ImageClassifier, noise_images

_NUM_CALIBRATION_BATCHES, _CALIBRATION_BATCH = 8, 32
# The borders of the graph stay in float: bytes, resize and normalization before the first convolution, softmax.
_IN_FLOAT = ("Cast", "Mul", "Add", "Sub", "Div", "Resize", "Softmax", "Transpose", "Slice", "Gemm", "MatMul")

_USAGE = """\
import json, onnxruntime
import numpy as np
from PIL import Image
model = onnxruntime.InferenceSession("MODEL.onnx")
classes = json.loads(model.get_modelmeta().custom_metadata_map["facts"])["classes"]
image = np.asarray(Image.open("image.jpg").convert("RGB"))
probabilities = model.run(["probabilities"], {"image": image[None]})[0][0]
print(classes[probabilities.argmax()], probabilities.max())
"""


def classifier_spec(module: ImageClassifier, task: str, facts: Any, num_classes: int) -> ExportSpec:
    """What to export of an image classifier, and the shapes to compare it at."""
    side = module.preprocessing.side
    shapes = [
        (1, side, side),
        (5, side, side),
        (3, 2 * side + 1, side + 3),
        (1, side // 2 + 1, 3 * side),
        (2, 240, 321),
    ]
    return ExportSpec(
        module=module,
        task=task,
        facts=facts,
        inputs={"image": "uint8 [batch, height, width, 3], RGB, any size; the center square is used"},
        outputs={"probabilities": "float32 [batch, classes]"},
        example=(noise_images(2, side + 7, side + 12),),
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
        output_shapes=[["batch", num_classes]],
        parity_inputs=[(noise_images(*shape),) for shape in shapes],
        pipeline_tag="image-classification",
        usage=_USAGE,
    )


def write_int8(source: Path, train: ImageSet, val: ImageSet) -> None:
    """Writes MODEL.int8.onnx, calibrated on training images and compared on validation images."""
    images = val.load(range(len(val)))
    held_out = HeldOut(
        accuracy=lambda path: accuracy_of(path, images, val.labels),
        samples=f"{len(val):,} validation images",
        timed={"1 image": images[:1], f"{len(images[:64])} images": images[:64]},
        input_name="image",
        num_samples=len(val),
    )
    export_int8(source, partial(quantize_classifier, train=train), held_out)


def quantize_classifier(source: Path, target: Path, train: ImageSet) -> None:
    """Writes an 8-bit copy of a classifier's file, calibrated on some training images."""
    num = min(len(train), _NUM_CALIBRATION_BATCHES * _CALIBRATION_BATCH)
    pixels = train.load(range(0, len(train), len(train) // num))[:num]
    batches = [pixels[i : i + _CALIBRATION_BATCH] for i in range(0, num, _CALIBRATION_BATCH)]
    quantize_static(source, target, input_name="image", calibration=batches, kept=_IN_FLOAT)


def check_same_data(now: str, then: str, data: str) -> None:
    """Raises UserError where the data is not what a run was trained on. now, then: its SHA-256; data: of --data."""
    if now != then:
        what = f"--data {data} has changed since the training"
        raise UserError("the 8-bit copy is calibrated on the run's own data", what, "put the old data back")


def accuracy_of(path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64], batch: int = 64) -> float:
    """Share of images that an ONNX file predicts right."""
    session = open_session(path)
    right = 0
    for start in range(0, len(pixels), batch):
        probabilities = session.run(None, {"image": pixels[start : start + batch]})[0]
        right += int((probabilities.argmax(1) == labels[start : start + batch]).sum())
    return right / len(pixels)
