import numpy as np
import torch

from kneessl.pictures.clips import picture_loader

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_a_batch_is_clips_of_one_slice_in_colour_with_their_numbers():
    batches = epoch_of(picture_loader(PIXELS, 4, seed=3), 0)
    assert [len(clips) for clips, _, _ in batches] == [4, 4, 2]
    for clips, numbers, places in batches:
        assert clips.shape[1:] == (1, 3, 32, 32)
        assert clips.dtype == torch.uint8
        assert torch.equal(clips[:, 0], torch.from_numpy(PIXELS[numbers.numpy()]))
        assert torch.equal(places, torch.full((len(clips), 1), 0.5))
    assert sorted(torch.cat([numbers for _, numbers, _ in batches]).tolist()) == list(range(10))


def test_the_order_follows_from_seed_and_epoch():
    def order(seed, epoch, drop_last=False):
        return [n for _, numbers, _ in epoch_of(picture_loader(PIXELS, 4, seed, drop_last), epoch) for n in numbers]

    assert order(3, 1) == order(3, 1)
    assert order(3, 1) != order(3, 2)
    assert order(3, 1) != order(4, 1)
    assert len(order(3, 1, drop_last=True)) == 8
