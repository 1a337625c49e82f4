import errno
import sys

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from kneessl.errors import sentence
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
    "error",
    [
        OSError(errno.ENOSPC, "No space left"),
        RuntimeError("PytorchStreamWriter failed writing file data/0"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 15953344 vs 15953240"),
    ],
)
def test_a_checkpoint_that_no_disk_has_room_for_leaves_the_one_before(tmp_path, monkeypatch, error):
    saved, save = [], torch.save

    def saving(checkpoint, path):
        saved.append(path)
        save(checkpoint, path)
        if len(saved) > 1:
            path.write_bytes(path.read_bytes()[:100])
            raise error

    monkeypatch.setattr(torch, "save", saving)
    with pytest.raises(type(error)) as raised:
        train(tmp_path, 4, 4, drop_last=False)
    assert sentence(raised.value).startswith(f"writing {tmp_path}: no space left")
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 0
    assert len(saved) == 2


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
