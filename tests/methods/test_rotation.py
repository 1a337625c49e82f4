import pytest
import torch
from helpers.gradients import assert_every_parameter_learns

from kneessl.methods.rotation import Rotation
from kneessl.nets.encoder import ClipEncoder
from kneessl.views.augment import T_PRIME, View
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing


@pytest.fixture
def method() -> Rotation:
    torch.manual_seed(0)
    return Rotation(ClipEncoder("none"))


def test_all_four_turns_of_each_slice_with_their_labels(method, clips, maker, generator):
    turned, labels = method.inputs(clips(2, 2), maker(32), generator())
    assert turned.shape == (16, 1, 32, 32)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    for i in range(16):
        back = turned[i, 0].rot90(-int(labels[i]))
        torch.testing.assert_close(back, turned[i % 4, 0], msg="turned back by its label, it is the upright slice")


def test_the_first_turn_is_the_view_itself_and_never_mirrored(method, clips, generator):
    always = View(flip=1.0, crop_area=(1, 1), crop_ratio=(1, 1), jitter=0, blur=0)
    make = ViewMaker(Preprocessing(64), always, T_PRIME)
    turned, _ = method.inputs(clips(), make, generator())
    torch.testing.assert_close(turned[:3], make.preprocessing(clips()), atol=1e-4, rtol=0)


def test_inputs_depend_on_the_generator_alone(method, clips, maker, generator):
    a, b, c = (method.inputs(clips(), maker(), generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_loss_is_the_cross_entropy_over_four_and_every_parameter_learns(method, clips, maker, generator):
    turned, labels = method.inputs(clips(), maker(), generator())
    loss, embeddings, partners = method(turned, labels)
    logits = method.head(embeddings).double()
    assert loss.item() == pytest.approx(-logits.log_softmax(1)[torch.arange(12), labels].mean().item(), rel=1e-5)
    assert embeddings.shape == (12, 512)
    assert not embeddings.requires_grad
    assert partners is None
    loss.backward()
    assert_every_parameter_learns(method)


def test_turns_can_be_learnt(method, generator):
    """Slices bright at the top: a few steps suffice, and turns of new slices are then told."""
    ramp = torch.linspace(255, 0, 256)[:, None].expand(256, 256)
    noise = torch.rand(12, 1, 256, 256, generator=generator()) * 60
    slices = (ramp + noise).clamp(0, 255).to(torch.uint8)
    make = ViewMaker(Preprocessing(32), View(crop_area=(0.5, 1.0), blur=0, jitter=0), T_PRIME)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    for step in range(12):
        loss = method(*method.inputs(slices[:6], make, generator(step))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3, "chance is 1.39"
    turned, labels = method.inputs(slices[6:], make, generator(99))
    found = method.head(method.encoder(turned)).argmax(1)  # batch norm by this batch: too few steps for averages
    assert (found == labels).double().mean() > 0.9
