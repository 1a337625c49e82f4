"""SSLM's network (also published as SKID): nine unshared branches, and the ConvLSTM that reads its maps downstream."""

from typing import Self

import torch
from torch import Tensor, nn

from kneessl.nets.encoder import Grid
from kneessl.nets.small_maps import Conv2d

BRANCHES = 9


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution - BN - ReLU; the authors' convolutions have a bias too, which batch norm takes away again."""
    conv = Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _branch(width: int) -> nn.Sequential:
    """`(N, 1, p, p)` -> `(N, width, p / 4, p / 4)`."""
    return nn.Sequential(
        _conv(1, width),
        _conv(width, width),
        nn.MaxPool2d(2),
        _conv(width, width),
        _conv(width, width),
        nn.MaxPool2d(2),
    )


class _Residual(nn.Module):
    """x + 0.25 * (conv3 - BN - ReLU, twice)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, channels, h, w)` -> the same shape."""
        return x + 0.25 * self.block(x)


class _Reduction(nn.Module):
    """Half the side, twice the channels: (conv3, conv3 with stride 2) beside (average pool, conv1), concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolved = nn.Sequential(_conv(channels, channels), _conv(channels, channels, stride=2))
        # Rounded up like a strided convolution, so that tiles of any side pass; the authors' sides are all even.
        self.pooled = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), _conv(channels, channels, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, channels, h, w)` -> `(N, 2 * channels, h / 2, w / 2)`, rounded up."""
        return torch.cat([self.convolved(x), self.pooled(x)], dim=1)


class SSLMEncoder(nn.Module):
    """Nine branches that share no weights, one a tile; a whole slice goes through all nine of them.

    Each branch is ((conv3, BN, ReLU) twice, max pool) twice; the nine are concatenated, brought to 4 * width channels
    by a 1 x 1 convolution, and go through residual and reduction blocks to 16 * width channels: all as in the authors'
    code (github.com/sadimanna/skid), whose width is 256. Grey slices enter as one channel; the authors repeat it three
    times, which is the same function. Max over slices and average over the picture, for features of fixed length, are
    our reading: downstream, the authors feed the maps to a ConvLSTM (`SSLMHead`).

    Args:
        width: Channels of a branch.
    """

    grid = Grid(4.5, 16)
    """The two ways through each reduction block differ by half a pixel of theirs; this is their middle."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.features = 16 * width
        self.branches = nn.ModuleList(_branch(width) for _ in range(BRANCHES))
        self.join = nn.Sequential(
            _conv(BRANCHES * width, 4 * width, kernel=1),
            _Residual(4 * width),
            _Reduction(4 * width),
            _Residual(8 * width),
            _Reduction(8 * width),
        )

    @property
    def trunk(self) -> Self:
        """The encoder itself: the module whose weights `encoder.safetensors` holds."""
        return self

    def tile_maps(self, tiles: Tensor) -> Tensor:
        """float `(N, 9, p, p)`, tile i for branch i -> maps `(N, 16 * width, p / 16, p / 16)`; p is at least 4."""
        branch_maps = [branch(tile[:, None]) for branch, tile in zip(self.branches, tiles.unbind(1), strict=True)]
        x = torch.cat(branch_maps, dim=1)
        for part in self.join:
            x = part(x)
        return x

    def maps(self, slices: Tensor) -> Tensor:
        """float `(N, 1, H, W)` -> maps `(N, 16 * width, H / 16, W / 16)`, each slice through all nine branches."""
        return self.tile_maps(slices.expand(-1, BRANCHES, -1, -1))

    def forward(self, clips: Tensor) -> Tensor:
        """float `(B, S, H, W)` -> features `(B, 16 * width)`."""
        maps = self.maps(clips.flatten(0, 1)[:, None]).unflatten(0, clips.shape[:2])
        return maps.amax(1).mean((2, 3))


class ConvLSTM(nn.Module):
    """An LSTM whose products are 3 x 3 convolutions (Shi et al. 2015, equation 3, without peepholes).

    Keras's ConvLSTM2D, which the authors use, has no peepholes either, and starts with forget biases of 1.

    Args:
        inputs: Channels of the sequence.
        hidden: Channels of the state.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = nn.Conv2d(inputs, 4 * hidden, 3, padding=1)
        self.from_state = nn.Conv2d(hidden, 4 * hidden, 3, padding=1, bias=False)
        nn.init.zeros_(self.from_input.bias)  # type: ignore[arg-type]
        nn.init.ones_(self.from_input.bias[hidden : 2 * hidden])  # type: ignore[index]

    def forward(self, sequence: Tensor) -> Tensor:
        """float `(B, S, inputs, h, w)` -> the state after each step, `(B, S, hidden, h, w)`."""
        given = self.from_input(sequence.flatten(0, 1)).unflatten(0, sequence.shape[:2])
        state = cell = given.new_zeros(len(sequence), self.hidden, *sequence.shape[3:])
        states = []
        for step in given.unbind(1):
            i, f, g, o = (step + self.from_state(state)).chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
            states.append(state)
        return torch.stack(states, dim=1)


class SSLMHead(nn.Module):
    """The maps of a clip's slices, in order -> two ConvLSTMs -> last state -> average -> one logit a finding (SSLM).

    Args:
        features: Channels of the maps, the encoder's `features`; the state has an eighth of them (512 of 4096).
        tasks: Findings; the authors have three.
    """

    def __init__(self, features: int, tasks: int) -> None:
        super().__init__()
        hidden = features // 8
        self.lstm = nn.Sequential(ConvLSTM(features, hidden), ConvLSTM(hidden, hidden))
        self.linear = nn.Linear(hidden, tasks)

    def forward(self, maps: Tensor, where: Tensor) -> Tensor:
        """float `(B, S, features, h, w)` in order -> logits `(B, tasks)`; their places `(B, S)` are not needed."""
        return self.linear(self.lstm(maps)[:, -1].mean((2, 3)))
