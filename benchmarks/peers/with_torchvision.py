"""BYOLMed2D in plain torchvision and PIL: the habits of public MRNet repositories in one, not a copy of any of them.

The whole volume is read for some of its slices; each slice becomes an RGB picture and is augmented on its own, as PIL
pictures on the CPU; three equal channels go through the network; the moving average is a Python loop over parameters.
"""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import resnet18
from workload import DIM, HIDDEN, Arm, Workload, drive

MOMENTUM = 0.99
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def view(size: int, blur: float, solarize: float) -> transforms.Compose:
    """The thesis's T or T' (table 5.1), which differ in their probabilities of blur and solarisation."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.GaussianBlur(23, sigma=(0.1, 2.0))], p=blur),
            transforms.RandomSolarize(128, p=solarize),
            transforms.ToTensor(),
            transforms.Normalize(**IMAGENET),
        ]
    )


class ClipImages(Dataset):
    """Two views `(slices, 3, size, size)` of one exam's slices an item."""

    def __init__(self, clips: list[tuple[Path, list[int]]], size: int) -> None:
        self.clips = clips
        self.views = view(size, blur=1.0, solarize=0.0), view(size, blur=0.1, solarize=0.2)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        path, numbers = self.clips[index]
        volume = np.load(path)
        pictures = [Image.fromarray(volume[number]).convert("RGB") for number in numbers]
        return tuple(torch.stack([view(picture) for picture in pictures]) for view in self.views)


class MaxOverSlices(nn.Module):
    """Clips `(B, S, 3, H, W)` -> ResNet-18's last maps -> maximum over the slices -> average -> `(B, 512)`."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*list(resnet18().children())[:-2])

    def forward(self, clips: Tensor) -> Tensor:
        maps = self.trunk(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        return maps.amax(1).mean((2, 3))


def head(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM))


def torchvision_arm(workload: Workload) -> Arm:
    loader = DataLoader(
        ClipImages(workload.draws(), workload.size), batch_size=workload.batch, num_workers=workload.workers
    )
    online = nn.Sequential(MaxOverSlices(), head(512)).to(workload.device)
    target = copy.deepcopy(online).requires_grad_(False)
    predictor = head(DIM).to(workload.device)
    optimizer = torch.optim.Adam([*online.parameters(), *predictor.parameters()], lr=3e-4)

    def views(batch: list[Tensor]) -> list[Tensor]:
        return [view.to(workload.device) for view in batch]

    def step(batch: list[Tensor]) -> None:
        x1, x2 = views(batch)
        with workload.autocast():
            p1, p2 = predictor(online(x1)), predictor(online(x2))
            with torch.no_grad():
                z1, z2 = target(x1), target(x2)
            loss = (4 - 2 * F.cosine_similarity(p1, z2) - 2 * F.cosine_similarity(p2, z1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for average, parameter in zip(target.parameters(), online.parameters(), strict=True):
            average.data.mul_(MOMENTUM).add_(parameter.data, alpha=1 - MOMENTUM)

    return Arm("torchvision + PIL, BYOLMed2D", partial(drive, loader, step), partial(drive, loader, views))
