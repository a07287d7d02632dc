"""The command `transformers`, also beside a CPU build of torch.

torchvision's wheel is linked with CUDA. Beside a CPU torch its compiled part does not load: importing it fails on two operators
that are not used here, and it cannot decode pictures. There Pillow decodes; the server itself is as it was published.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps


def main() -> None:
    if torch.version.cuda is None:
        _do_without_the_compiled_part()
    from transformers.cli.transformers import main as command

    command()


def _do_without_the_compiled_part() -> None:
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision.io

    torchvision.io.decode_image = _decode


def _decode(data: torch.Tensor, **_options: Any) -> torch.Tensor:
    """Three colours, rows, columns."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data.numpy().tobytes()))).convert("RGB")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


if __name__ == "__main__":
    main()
