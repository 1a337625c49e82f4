"""Convolutions of a ResNet's stages in bf16 on a CPU: `conv2d` beside the matrix product of `nets/small_maps.py`.

    python benchmarks/small_maps.py [--slices 64] [--rounds 7]

Prints, for each convolution, milliseconds forward and backward of both (the least of the rounds, taken in turns), and
which one `small_maps.Conv2d` takes.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kneessl.nets.small_maps import Conv2d, MatrixProduct
from kneessl.training.machine import describe_machine

CASES = [  # channels in and out, side of the input, kernel, stride
    *((64, 64, 16, 3, 1), (128, 128, 8, 3, 1), (128, 256, 8, 3, 2), (256, 256, 4, 3, 1), (256, 256, 6, 3, 1)),
    *((256, 512, 4, 3, 2), (256, 512, 4, 1, 2), (512, 512, 2, 3, 1), (512, 512, 3, 3, 1), (512, 512, 4, 3, 1)),
    *((512, 512, 7, 3, 1), (512, 512, 8, 3, 1)),
]


FORMS: list[Callable[..., Tensor]] = [
    lambda x, weight, stride: F.conv2d(x, weight, None, stride, weight.shape[-1] // 2),
    lambda x, weight, stride: MatrixProduct.apply(x, weight, stride, weight.shape[-1] // 2),
]


def seconds(convolve: Callable[..., Tensor], x: Tensor, weight: Tensor, stride: int) -> float:
    """Of one forward and one backward pass."""
    start = time.perf_counter()
    y = convolve(x, weight, stride)
    torch.autograd.grad(y, (x, weight), torch.ones_like(y))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    print(f"{describe_machine()}, bf16, {args.slices} slices\n")
    print("| channels | side | kernel, stride | conv2d, ms | product, ms | taken |\n|---|---|---|---|---|---|")
    for inputs, outputs, side, kernel, stride in CASES:
        layer = Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False).to(memory_format=torch.channels_last)
        x = torch.randn(args.slices, inputs, side, side).bfloat16().to(memory_format=torch.channels_last)
        x.requires_grad_()
        weight = layer.weight.detach().bfloat16().requires_grad_()
        turns = [[seconds(form, x, weight, stride) for form in FORMS] for _ in range(args.rounds + 1)][1:]
        plain, product = (1000 * min(times) for times in zip(*turns, strict=True))
        with torch.autocast("cpu", torch.bfloat16):
            taken = "product" if "MatrixProduct" in type(layer(x).grad_fn).__name__ else "conv2d"
        print(f"| {inputs} to {outputs} | {side} | {kernel}, {stride} | {plain:.1f} | {product:.1f} | {taken} |")


if __name__ == "__main__":
    main()
