"""A ResNet's maps by ONNX Runtime: PyTorch's numbers within rounding, on CPUs in about two thirds of its time.

PyTorch runs convolution, batch norm, ReLU and addition one after the other, each reading and writing all maps, and
brings weights into the processor's layout at every pass. docs/performance.md has what other forms take.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kneessl.nets.encoder import ClipEncoder, SliceEncoder

OPSET, IR = 17, 8
Maps = Callable[[Tensor], Tensor]
"""float32 `(N, 1, H, W)` -> float32 `(N, C, h, w)`."""


def onnx_maps(encoder: nn.Module) -> Maps | None:
    """`encoder.maps` of grey slices, in evaluation mode, as its weights are now.

    Args:
        encoder: On the CPU.

    Returns:
        None where there is no such way: ONNX Runtime is not installed, the encoder is no ResNet, or is on a GPU.
    """
    slices = encoder.slices if isinstance(encoder, ClipEncoder) else encoder
    if not isinstance(slices, SliceEncoder) or slices.trunk.conv1.weight.is_cuda:
        return None
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(resnet_model(slices), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["maps"], {"slices": x.numpy()})[0])


def resnet_model(encoder: SliceEncoder) -> bytes:
    """An ONNX model: slices, float32 `(N, 1, H, W)`, to maps; batch norm is folded into convolutions."""
    from onnx import TensorProto, helper

    trunk, graph = encoder.trunk, Graph()
    x = graph.conv("slices", trunk.conv1, trunk.bn1, grey=True)
    x = graph.add("Relu", [x])
    pool = trunk.maxpool
    if isinstance(pool, nn.MaxPool2d):
        x = graph.add(
            "MaxPool", [x], kernel_shape=[pool.kernel_size] * 2, strides=[pool.stride] * 2, pads=[pool.padding] * 4
        )
    blocks: list[Any] = [block for stage in trunk.layers for block in stage]
    for block in blocks:
        y = graph.add("Relu", [graph.conv(x, block.conv1, block.bn1)])
        y = graph.conv(y, block.conv2, block.bn2)
        short = x if block.downsample is None else graph.conv(x, *block.downsample)
        x = graph.add("Relu", [graph.add("Add", [y, short])])
    graph.nodes[-1].output[0] = "maps"
    source = helper.make_tensor_value_info("slices", TensorProto.FLOAT, ["n", 1, "height", "width"])
    found = helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["n", "channels", "rows", "columns"])
    whole = helper.make_graph(graph.nodes, "resnet", [source], [found], graph.weights)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR).SerializeToString()


class Graph:
    """Nodes of an ONNX graph and their weights, in order."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.weights: list = []

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node; the name of its output."""
        from onnx import helper

        name = f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(self, x: str, conv: Any, norm: Any, grey: bool = False) -> str:
        """Add a convolution with the batch norm after it; where `grey`, for one channel that stands for all."""
        from onnx import numpy_helper

        weight = conv.weight.detach().double()
        weight = weight.sum(1, keepdim=True) if grey else weight
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        bias = norm.bias.detach().double() - norm.running_mean.double() * scale
        names = []
        for values in (weight * scale[:, None, None, None], bias):
            names.append(f"w{len(self.weights)}")
            self.weights.append(numpy_helper.from_array(values.numpy().astype(np.float32), names[-1]))
        return self.add(
            "Conv", [x, *names], kernel_shape=conv.kernel_size, strides=conv.stride, pads=[*conv.padding] * 2
        )
