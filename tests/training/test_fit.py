import sys

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from kneessl.progress import progress
from kneessl.training import callbacks
from kneessl.training.fit import fit
from kneessl.views.clips import EpochSampler


class Mean(L.LightningModule):
    """Learns a number; what `fit` needs of a module, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return (batch[0] - self.value).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def epoch_facts(self) -> dict[str, float]:
        return {}


class First(TensorDataset):
    """Of a draw of `EpochSampler`, the example alone."""

    def __getitem__(self, draw):
        return super().__getitem__(draw[1])


def train(out, samples: int, batch: int, drop_last: bool) -> None:
    sampler = EpochSampler(range(samples), 0, batch if drop_last else 1)
    loader = DataLoader(First(torch.ones(samples)), batch_size=batch, sampler=sampler, drop_last=drop_last)
    fit(Mean(), loader, out, title="mean", epochs=2, precision="float32", data="none")


@pytest.mark.parametrize(
    ("samples", "batch", "drop_last", "counted"),
    [(3, 4, False, 6), (9, 4, False, 18), (9, 4, True, 16), (8, 4, False, 16)],
)
def test_the_bar_is_full_when_training_is_done(samples, batch, drop_last, counted, tmp_path, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **_):
            self.total, self.n = total, 0
            bars.append(self)

        def update(self, n):
            self.n += n

        def set_postfix(self, **_):
            pass

        def close(self):
            pass

    monkeypatch.setattr(callbacks, "progress", Bar)
    train(tmp_path, samples, batch, drop_last)
    assert [(bar.n, bar.total) for bar in bars] == [(counted, counted)]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_on_a_terminal_alone(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert list(progress(range(3), title="steps", unit="step")) == [0, 1, 2]
    assert ("3/3" in capsys.readouterr().err) == terminal
    assert list(progress(range(3), title="steps", unit="step", hidden=True)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
