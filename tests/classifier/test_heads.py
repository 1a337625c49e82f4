import pytest
import torch

from kneessl.classifier.heads import HEADS, Explained, MaxHead, SliceMaxHead

EXPLAINED = [name for name, make in HEADS.items() if isinstance(make(8, 2), Explained)]
CHANNELS, TASKS = 16, 3


def made(name):
    torch.manual_seed(0)
    return HEADS[name](CHANNELS, TASKS).double().eval()


def maps(slices=5):
    return torch.randn(1, slices, CHANNELS, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def bias(head):
    return head.bias if hasattr(head, "bias") else head.linear.bias


@torch.no_grad()
@pytest.mark.parametrize("name", EXPLAINED)
def test_the_evidence_and_the_bias_sum_to_the_logits(name):
    head, x = made(name), maps()
    evidence = head.evidence(x[0])
    assert evidence.shape == (TASKS, 5, 3, 4)
    logits = head(x, torch.linspace(0, 1, 5, dtype=torch.float64)[None])[0]
    assert torch.allclose(evidence.sum((1, 2, 3)) + bias(head), logits, rtol=0, atol=1e-12)


def test_which_heads_are_exact():
    assert set(EXPLAINED) == {"max", "mean", "slice_max", "attention"}


@torch.no_grad()
@pytest.mark.parametrize("kind", [MaxHead, SliceMaxHead])
def test_a_slice_that_never_attains_a_maximum_has_no_evidence(kind):
    torch.manual_seed(0)
    head, x = kind(CHANNELS, TASKS), maps().float()
    x[:, 3] = x.amin() - 1
    evidence = head.evidence(x[0])
    assert evidence[:, 3].abs().max() == 0
    assert evidence[:, [0, 1, 2, 4]].abs().sum((0, 2, 3)).min() > 0


@torch.no_grad()
@pytest.mark.parametrize("kind", [MaxHead, SliceMaxHead])
def test_of_two_equal_slices_the_first_has_the_evidence(kind):
    torch.manual_seed(0)
    head, x = kind(CHANNELS, TASKS), maps(3)[0].float()
    evidence = head.evidence(torch.cat([x, x]))
    assert torch.equal(evidence[:, :3], head.evidence(x))
    assert evidence[:, 3:].abs().max() == 0


@torch.no_grad()
def test_the_maximum_s_evidence_position_by_position():
    head, x = made("max"), maps()[0]
    evidence = head.evidence(x)
    for row, column in ((0, 0), (2, 3)):
        wanted = torch.zeros(TASKS, 5, dtype=torch.float64)
        for channel in range(CHANNELS):
            best = max(range(5), key=lambda s: x[s, channel, row, column])
            wanted[:, best] += head.weight[:, channel] * x[best, channel, row, column] / 12
        assert torch.allclose(evidence[:, :, row, column], wanted)


@torch.no_grad()
@pytest.mark.parametrize("name", ["max", "mean", "slice_max", "attention"])
def test_the_order_of_slices_does_not_count(name):
    head, x, where = made(name), maps(), torch.linspace(0, 1, 5, dtype=torch.float64)[None]
    order = torch.tensor([3, 0, 4, 1, 2])
    # Attention's softmax is in float32.
    assert torch.allclose(head(x[:, order], where), head(x, where), rtol=0, atol=1e-6)
    assert torch.allclose(head.evidence(x[0, order]), head.evidence(x[0])[:, order], rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_transformer_knows_a_slice_by_its_place_and_not_by_its_rank():
    head, x, where = made("transformer"), maps(), torch.linspace(0, 1, 5, dtype=torch.float64)[None]
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(head(x[:, order], where[:, order]), head(x, where), rtol=0, atol=1e-10)
    assert (head(x[:, order], where) - head(x, where)).abs().max() > 1e-4
    assert (head(x, where / 2) - head(x, where)).abs().max() > 1e-4


@torch.no_grad()
def test_the_order_of_slices_counts_for_the_lstm():
    head, x, where = made("conv_lstm"), maps(), torch.zeros(1, 5)
    assert (head(x.flip(1), where) - head(x, where)).abs().max() > 1e-6


@torch.no_grad()
def test_attention_is_a_share_for_each_task():
    head, x = made("attention"), torch.cat([maps(), maps() * 2])
    instances, shares = head.shares(x)
    assert shares.shape == (2, TASKS, 5 * 3 * 4)
    assert torch.allclose(shares.double().sum(2), torch.ones(2, TASKS, dtype=torch.float64), atol=1e-6)
    assert torch.equal(instances[0, 1 * 12 + 2 * 4 + 3], x[0, 1, :, 2, 3]), "slice by slice, row by row"


@pytest.mark.parametrize("name", HEADS)
def test_an_exam_s_logits_do_not_depend_on_its_batch(name):
    head, where = made(name), torch.linspace(0, 1, 5, dtype=torch.float64).repeat(2, 1)
    x = torch.cat([maps(), maps().flip(1) + 1])
    both = head(x, where)
    assert both.shape == (2, TASKS)
    for i in range(2):
        assert torch.allclose(both[i], head(x[i : i + 1], where[:1])[0], rtol=0, atol=1e-6)
