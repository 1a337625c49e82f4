"""Makes `import torchvision` work beside the CPU build of PyTorch; import this module first.

The C++ extension in torchvision's wheel is linked against CUDA, so the CPU build of PyTorch cannot load it. torchvision
goes on without it, until it registers shape functions for two operators that the extension alone declares. Declaring
them is enough: transforms and ResNets are Python, and whoever calls an operator still gets an error.
"""

import torch

if torch.version.cuda is None:
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
