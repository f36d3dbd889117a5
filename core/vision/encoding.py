"""Images as text, for JSON and for pages: PNG in a data URL (RFC 2397). numpy and Pillow alone."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_data_url(image: NDArray[np.uint8]) -> str:
    """uint8 [H, W, C], C 1 or 3 → "data:image/png;base64,…"; no pixel changes."""
    file = io.BytesIO()
    pixels = image[..., 0] if image.shape[2] == 1 else image
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)  # three times as fast as the default, a tenth larger
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
