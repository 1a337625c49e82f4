"""What each part of the fast path is worth: `python benchmarks/speed_ablation.py [--slices 4] [--rounds 9]`.

Every row has two ways to do the same thing: the plain one that a first version would have, and ours. They take turns in
one process, round by round, on slices of random values. *Saved*: of a whole pre-training step (BYOLMed2D, 224 pixels),
by the medians. Parts that act on the whole step are timed on it; the others alone, and set against it.
"""

import argparse
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneessl.exams.folder import ExamFolder, write_series
from kneessl.methods import make_method
from kneessl.nets.momentum import ema_update
from kneessl.nets.resnet import ResNet18
from kneessl.process_tuning import keep_freed_memory
from kneessl.training.fit import seeded
from kneessl.training.machine import describe_machine
from kneessl.training.optimizers import LARS, make_optimizer
from kneessl.views.augment import BLUR_KERNEL, View, ViewParameters, apply, draw
from kneessl.views.clips import Clips
from kneessl.views.preprocess import Preprocessing

SIZE, SERIES = 224, 30
Step = Callable[[], object]
JITTERLESS = View(jitter=0.0, blur=1.0)
"""Crop, flip and blur: what the two ways of resampling differ in."""


def turns(plain: Step, ours: Step, rounds: int, device: torch.device) -> tuple[float, float]:
    """Median seconds of each, after a first turn that is not counted."""
    seconds: dict[Step, list[float]] = {plain: [], ours: []}
    for number in range(rounds + 1):
        for step in (plain, ours):
            start = now(device)
            step()
            if number:
                seconds[step].append(now(device) - start)
    return statistics.median(seconds[plain]), statistics.median(seconds[ours])


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Training:
    """A pre-training step on views in place, in one of several ways."""

    def __init__(
        self, exams: int, slices: int, device: torch.device, channels_last: bool = True, channels: int = 1,
        bf16: bool = False, compiled: bool = False, stem_last: bool = True,
    ) -> None:  # fmt: skip
        torch.manual_seed(0)
        self.method = make_method("byolmed2d", None, {}).to(device)
        if not channels_last:
            self.method.to(memory_format=torch.contiguous_format)
        for encoder in (self.method.encoder, self.method.target[0]):
            if not (channels_last and stem_last):
                encoder.trunk.grey_weight = partial(contiguous_grey_weight, encoder.trunk)
            if compiled:
                encoder.slices.compile()
        self.optimizer = make_optimizer("adamw", self.method, 1e-4, 0.0)
        shape = (exams, slices, SIZE, SIZE) if channels == 1 else (exams, slices, channels, SIZE, SIZE)
        self.views = torch.randn(2, *shape, device=device)
        self.device, self.bf16 = device, bf16

    def __call__(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.method(*self.views)[0]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step(0.5)


def contiguous_grey_weight(trunk: ResNet18) -> Tensor:
    return trunk.conv1.weight.sum(1, keepdim=True).contiguous()


def one_by_one(slices: Tensor, params: ViewParameters) -> Tensor:
    """Crop, resize, flip and blur of `apply`, an operation and a clip at a time, as a first version would have them."""
    radius = (BLUR_KERNEL - 1) // 2
    views = []
    for clip, (top, left, height, width), flip, sigma in zip(
        slices, params.box.tolist(), params.flip.tolist(), params.sigma.tolist(), strict=True
    ):
        view = (clip.float() / 255)[None, :, top : top + height, left : left + width]
        view = F.interpolate(view, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)
        view = view.flip(3) if flip else view
        if sigma:
            taps = torch.arange(-radius, radius + 1, device=slices.device)
            line = torch.softmax(-0.5 * (taps / sigma) ** 2, 0)
            kernel = (line[:, None] * line).expand(len(clip), 1, -1, -1)
            view = F.conv2d(F.pad(view, [radius] * 4, mode="reflect"), kernel, groups=len(clip))
        views.append(view)
    return torch.cat(views)


def looped_ema(target: nn.Module, online: nn.Module, tau: float) -> None:
    with torch.no_grad():
        for a, b in zip(target.parameters(), online.parameters(), strict=True):
            a.mul_(tau).add_(b, alpha=1 - tau)


class LoopedLARS(LARS):
    """A parameter at a time, its norms read by the host."""

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                update = p.grad.clone()
                if p.ndim > 1:
                    update.add_(p, alpha=group["weight_decay"])
                    w, d = p.norm().item(), update.norm().item()
                    update.mul_(group["eta"] * w / d if w and d else 1.0)
                velocity = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                velocity.mul_(group["momentum"]).add_(update)
                p.add_(velocity, alpha=-group["lr"])


def optimizers(device: torch.device) -> dict[str, torch.optim.Optimizer]:
    """Each on weights and gradients of its own."""

    def weights() -> list[nn.Parameter]:
        torch.manual_seed(0)
        method = make_method("byolmed2d", None, {}).to(device)
        trained = [p for p in method.parameters() if p.requires_grad]
        for p in trained:
            p.grad = torch.randn_like(p)
        return trained

    return {
        "LARS": LARS(weights(), lr=0.1),
        "looped LARS": LoopedLARS(weights(), lr=0.1),
        "fused": torch.optim.AdamW(weights(), lr=1e-4, fused=True),
        "looped": torch.optim.AdamW(weights(), lr=1e-4, foreach=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=2)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = Training(args.exams, args.slices, device)
    base()
    whole = {
        "channels_last": Training(args.exams, args.slices, device, channels_last=False),
        "the first convolution in channels_last as well": Training(args.exams, args.slices, device, stem_last=False),
        "first convolution on one channel": Training(args.exams, args.slices, device, channels=3),
    }
    instead = {
        "bf16 autocast": Training(args.exams, args.slices, device, bf16=True),
        "torch.compile of the encoders": Training(args.exams, args.slices, device, compiled=True),
    }
    print("| part | plain, ms | ours, ms | saved of a step |\n|---|---|---|---|")
    step = 0.0
    for name, plain in whole.items():
        a, step = turns(plain, base, args.rounds, device)
        row(name, a, step, a)
    for name, other in instead.items():
        try:
            a, b = turns(base, other, args.rounds, device)
        except Exception as error:  # a compiler that is not there says so in many ways
            print(f"| {name} | | cannot run here: {type(error).__name__} | |")
            continue
        row(name, a, b, a)
    for name, (plain, ours) in parts(args.exams, args.slices, device).items():
        a, b = turns(plain, ours, args.rounds, device)
        row(name, a, b, step + a - b)
    print(
        f"\nA step of {args.exams} x {args.slices} slices: {1000 * step:.0f} ms. {describe_machine()}, "
        f"PyTorch {torch.__version__}, {args.rounds} rounds, {datetime.date.today()}"
    )


def row(name: str, plain: float, ours: float, step: float) -> None:
    print(f"| {name} | {1000 * plain:.1f} | {1000 * ours:.1f} | {100 * (plain - ours) / step:+.1f} % |", flush=True)


def parts(exams: int, count: int, device: torch.device) -> dict[str, tuple[Step, Step]]:
    """Parts of a step that are timed alone; what a step does twice, for both views, is done twice."""
    made = optimizers(device)
    slices = torch.randint(0, 256, (exams, count, 256, 256), dtype=torch.uint8, device=device)
    params = draw(JITTERLESS, exams, 256, 256, seeded(0))
    torch.testing.assert_close(one_by_one(slices, params), apply(slices, params, SIZE), atol=1e-3, rtol=0)
    a, b = (make_method("byolmed2d", None, {}).to(device) for _ in range(2))
    folder = ExamFolder(write_exams(Path(tempfile.mkdtemp()), exams))
    clips = Clips(folder, "train", "sagittal", folder.exams("train", "sagittal"), count, 0, Preprocessing())

    def volumes() -> list[Tensor]:
        whole = [torch.from_numpy(np.load(folder.path("train", "sagittal", exam))).float() for exam in clips.exams]
        return [volume[torch.randperm(len(volume))[:count].sort()[0]] for volume in whole]

    def twice(make: Callable[[Tensor, ViewParameters], Tensor]) -> Step:
        return lambda: [make(slices, params) for _ in range(2)]

    return {
        "only the sampled slices are read, as uint8": (volumes, lambda: [clips[0, i, 0] for i in range(exams)]),
        "crop, resize and flip as two matrix products, blur as two": (
            twice(one_by_one), twice(lambda x, p: apply(x, p, SIZE)),
        ),
        "EMA of all parameters at once": (lambda: looped_ema(a, b, 0.99), lambda: ema_update(a, b, 0.99)),
        "LARS over all parameters at once, no `.item()`": (made["looped LARS"].step, made["LARS"].step),
        "fused AdamW": (made["looped"].step, made["fused"].step),
    }  # fmt: skip


def write_exams(root: Path, exams: int) -> Path:
    rng = np.random.default_rng(0)
    for i in range(exams):
        write_series(root, "train", "sagittal", f"{i:04d}", rng.integers(0, 256, (SERIES, 256, 256), dtype=np.uint8))
    return root


if __name__ == "__main__":
    main()
