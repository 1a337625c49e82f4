"""BYOL as lightly's documentation does it (docs.lightly.ai, self-supervised learning, examples, BYOL, PyTorch).

Kept: heads, loss, optimiser, update of the momentum networks, transforms, one DataLoader. Changed: views of the size
asked for, with the blur that the example turns off for pictures of 32 x 32; slices instead of CIFAR-10; as many worker
processes as there are cores, instead of 8; autocast where bf16 is asked for.
"""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from workload import DIM, HIDDEN, Arm, Workload, drive

MOMENTUM = 0.996
"""The example's first value."""


class SliceImages(Dataset):
    """One slice an item, as the RGB picture that the transforms take, and a label that nobody reads.

    It reads that slice alone, through a memory map; lightly's own data set would decode a PNG or JPEG file.
    """

    def __init__(self, slices: list[tuple[Path, int]], transform: BYOLTransform) -> None:
        self.slices, self.transform = slices, transform

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        path, number = self.slices[index]
        return self.transform(Image.fromarray(np.load(path, mmap_mode="r")[number]).convert("RGB")), 0


class BYOL(nn.Module):
    """Online and momentum networks around a backbone of 512 features."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = BYOLProjectionHead(512, HIDDEN, DIM)
        self.prediction_head = BYOLPredictionHead(DIM, HIDDEN, DIM)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, x: Tensor) -> Tensor:
        return self.prediction_head(self.projection_head(self.backbone(x).flatten(start_dim=1)))

    def forward_momentum(self, x: Tensor) -> Tensor:
        return self.projection_head_momentum(self.backbone_momentum(x).flatten(start_dim=1)).detach()


def lightly_arm(workload: Workload) -> Arm:
    transform = BYOLTransform(
        view_1_transform=BYOLView1Transform(input_size=workload.size),
        view_2_transform=BYOLView2Transform(input_size=workload.size),
    )
    slices = [(path, number) for path, numbers in workload.draws() for number in numbers]
    loader = DataLoader(
        SliceImages(slices, transform),
        batch_size=workload.batch * workload.slices,
        drop_last=True,
        num_workers=workload.workers,
    )
    model = BYOL(nn.Sequential(*list(resnet18().children())[:-1])).to(workload.device)
    criterion = NegativeCosineSimilarity()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)

    def views(batch: tuple[list[Tensor], Tensor]) -> list[Tensor]:
        return [view.to(workload.device) for view in batch[0]]

    def step(batch: tuple[list[Tensor], Tensor]) -> None:
        update_momentum(model.backbone, model.backbone_momentum, m=MOMENTUM)
        update_momentum(model.projection_head, model.projection_head_momentum, m=MOMENTUM)
        x0, x1 = views(batch)
        with workload.autocast():
            p0, z0 = model(x0), model.forward_momentum(x0)
            p1, z1 = model(x1), model.forward_momentum(x1)
            loss = 0.5 * (criterion(p0, z1) + criterion(p1, z0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Arm("lightly, BYOL", partial(drive, loader, step), partial(drive, loader, views))
