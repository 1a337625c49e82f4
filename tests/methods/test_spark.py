import pytest
import torch
from helpers.gradients import assert_every_parameter_learns

from kneessl.errors import UserError
from kneessl.methods.spark import SparK
from kneessl.nets.encoder import ClipEncoder
from kneessl.nets.masked import enlarge, split_patches
from kneessl.views.augment import T_PRIME, T
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing

MAKE = ViewMaker(Preprocessing(96), T, T_PRIME)


@pytest.fixture
def method() -> SparK:
    torch.manual_seed(0)
    return SparK(ClipEncoder("none"), width=32)


def batch(method: SparK, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randint(0, 256, (2, 2, 64, 64), dtype=torch.uint8, generator=generator)
    return method.inputs(clips, MAKE, generator)


def test_one_view_and_a_mask_a_slice(method):
    view, visible = batch(method)
    assert view.shape == (2, 2, 96, 96)
    assert visible.shape == (4, 3, 3)
    assert visible.dtype == torch.bool
    assert visible.flatten(1).sum(1).tolist() == [4] * 4, "40 % of 9"
    assert len(visible.unique(dim=0)) > 1, "each slice has a mask of its own"
    again = batch(method)
    assert torch.equal(view, again[0])
    assert torch.equal(visible, again[1])
    assert not torch.equal(visible, batch(method, 1)[1])


def test_every_patch_is_hidden_equally_often(method):
    clips = torch.zeros(500, 1, 32, 32, dtype=torch.uint8)
    _, visible = method.inputs(clips, ViewMaker(Preprocessing(64), T, T_PRIME), torch.Generator().manual_seed(0))
    share = visible.float().mean(0)
    assert share.shape == (2, 2)
    assert (share - 0.5).abs().max() < 0.1, "2 of 4"


@pytest.mark.parametrize(("ratio", "seen"), [(0.001, 8), (0.999, 1), (0.5, 4)])
def test_something_stays_visible_and_something_is_hidden(ratio, seen):
    _, visible = batch(SparK(ClipEncoder("none"), mask_ratio=ratio, width=32))
    assert visible.flatten(1).sum(1).tolist() == [seen] * 4


def test_hidden_pixels_change_the_target_but_not_the_painting(method):
    view, visible = batch(method)
    hidden = ~enlarge(visible, view.flatten(0, 1)[:, None]).unflatten(0, (2, 2))[:, :, 0]
    painted = []
    method.decoder.register_forward_hook(lambda *args: painted.append(args[2].detach()))
    first = method(view, visible)
    changed = torch.where(hidden, torch.randn(view.shape, generator=torch.Generator().manual_seed(9)), view)
    second = method(changed, visible)
    assert torch.equal(first.embeddings, second.embeddings)
    assert torch.equal(painted[0], painted[1])
    assert first.loss != second.loss


def test_the_loss_is_on_hidden_patches_only(method):
    view, visible = batch(method)
    painted = []
    method.decoder.register_forward_hook(lambda *args: painted.append(args[2].detach()))
    loss = method(view, visible).loss.item()
    patches, guesses = split_patches(view.flatten(0, 1)[:, None], 3, 3), split_patches(painted[0], 3, 3)
    errors = []
    for patch, guess, seen in zip(patches, guesses, visible.flatten(), strict=True):
        if not seen:
            wanted = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            errors.append(((guess - wanted) ** 2).mean().item())
    assert len(errors) == 4 * 5
    assert loss == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_embeddings_are_the_visible_features_means(method):
    method.eval()
    view, visible = batch(method)
    outcome = method(view, visible)
    everything = method(view, torch.ones_like(visible))
    assert outcome.embeddings.shape == (4, 512)
    assert not outcome.embeddings.requires_grad
    assert outcome.partners is None
    torch.testing.assert_close(everything.embeddings, method.encoder(view).detach(), rtol=1e-4, atol=1e-5)


def test_a_gradient_reaches_every_parameter(method):
    method(*batch(method)).loss.backward()
    assert_every_parameter_learns(method)


def test_afterwards_the_encoder_is_a_dense_resnet_with_the_same_names(method):
    names = set(ClipEncoder("max").trunk.state_dict())
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    view, visible = batch(method)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = method(view, visible).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    trunk = method.encoder.trunk
    assert set(trunk.state_dict()) == names
    assert trunk.bn1.num_batches_tracked == 5
    fresh = ClipEncoder("none").eval()
    fresh.trunk.load_state_dict(trunk.state_dict())
    torch.testing.assert_close(fresh(view), method.encoder.eval()(view))
    assert fresh(view).isfinite().all()


def test_it_runs_under_autocast(method):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(*batch(method)).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@pytest.mark.parametrize("size", [32, 48, 100])
def test_a_size_that_cannot_be_cut_is_refused(method, size):
    make = ViewMaker(Preprocessing(size), T, T_PRIME)
    with pytest.raises(UserError, match=f"size is {size}; .* multiple of 32"):
        method.inputs(torch.zeros(2, 1, 64, 64, dtype=torch.uint8), make, torch.Generator())


@pytest.mark.parametrize("setting", [{"mask_ratio": 1.2}, {"width": 40}, {"width": 0}])
def test_nonsense_settings_are_refused_by_name(setting):
    with pytest.raises(UserError, match=f"settings.{next(iter(setting))} is"):
        SparK(ClipEncoder("none"), **setting)
