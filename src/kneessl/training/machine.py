"""The machine that a training runs on, and the precision that suits it."""

import platform
import resource
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bf16"]
LightningPrecision = Literal["32-true", "bf16-mixed"]


def peak_memory() -> int:
    """Most bytes that this process has held: of the GPU where there is one, else of main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def describe_machine() -> str:
    """Processor or GPU, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def lightning_precision(precision: Precision) -> LightningPrecision:
    """Lightning's word for it; "auto" takes bf16 where the hardware multiplies it fast."""
    if precision == "auto":
        cpu = torch.cpu.get_capabilities()
        fast = cpu.get("avx512_bf16", False) or cpu.get("amx_tile", False)
        if torch.cuda.is_available():
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if fast else "float32"
    return "bf16-mixed" if precision == "bf16" else "32-true"
