import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from kneessl import objectives


def byol_by_hand(p: np.ndarray, z: np.ndarray) -> float:
    """Thesis, equation 2.7, one pair at a time, in float64."""
    terms = []
    for a, b in zip(p.astype(np.float64), z.astype(np.float64), strict=True):
        a, b = a / math.sqrt(sum(a * a)), b / math.sqrt(sum(b * b))
        terms.append(sum((a - b) ** 2))
    return sum(terms) / len(terms)


def unit(v: np.ndarray) -> np.ndarray:
    return v / math.sqrt(float((v.astype(np.float64) ** 2).sum()))


def logsumexp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def simsiam_by_hand(p: np.ndarray, z: np.ndarray) -> float:
    """Chen and He 2021, equation 1."""
    return -float(np.mean([unit(a) @ unit(b) for a, b in zip(p, z, strict=True)]))


def nt_xent_by_hand(z1: np.ndarray, z2: np.ndarray, temperature: float) -> float:
    """Thesis, equations 2.2 and 2.3, one anchor at a time."""
    z = [unit(v) for v in (*z1, *z2)]
    n, terms = len(z1), []
    for i in range(2 * n):
        partner = i + n if i < n else i - n
        others = [z[i] @ z[j] / temperature for j in range(2 * n) if j != i]
        terms.append(logsumexp(others) - z[i] @ z[partner] / temperature)
    return sum(terms) / len(terms)


def info_nce_by_hand(q: np.ndarray, k: np.ndarray, queue: np.ndarray, temperature: float) -> float:
    """Thesis, equation 2.4: the sum over one positive and K negatives."""
    terms = []
    for a, b in zip(q, k, strict=True):
        own = unit(a) @ unit(b) / temperature
        terms.append(logsumexp([own, *(unit(a) @ unit(column) / temperature for column in queue.T)]) - own)
    return sum(terms) / len(terms)


def barlow_twins_by_hand(za: np.ndarray, zb: np.ndarray, lambd: float) -> float:
    """Thesis, equation 2.6, one pair of features at a time."""
    loss = 0.0
    for i in range(za.shape[1]):
        for j in range(za.shape[1]):
            a, b = za[:, i] - za[:, i].mean(), zb[:, j] - zb[:, j].mean()
            c = sum(a * b) / (math.sqrt(sum(a**2)) * math.sqrt(sum(b**2)))
            loss += (1 - c) ** 2 if i == j else lambd * c**2
    return loss


def vicreg_by_hand(za: np.ndarray, zb: np.ndarray, weights: tuple[float, float, float] = (25, 25, 1)) -> float:
    """Bardes et al. 2022, equations 1 to 6, with the authors' code's means over features and views."""
    n, dim = za.shape
    distance = sum((za[i, j] - zb[i, j]) ** 2 for i in range(n) for j in range(dim)) / (n * dim)
    shortfall = covariance = 0.0
    for z in (za, zb):
        c = np.cov(z.T)
        shortfall += sum(max(0.0, 1 - math.sqrt(c[j, j] + 1e-4)) for j in range(dim)) / dim / 2
        covariance += sum(c[i, j] ** 2 for i in range(dim) for j in range(dim) if i != j) / dim
    return weights[0] * distance + weights[1] * shortfall + weights[2] * covariance


def dino_by_hand(
    student: np.ndarray, teacher: np.ndarray, centre: np.ndarray, t_student: float, t_teacher: float
) -> float:
    """Caron et al. 2021, algorithm 1: H(t, s) = - sum over prototypes of p_t log p_s."""
    terms = []
    for s, t in zip(student / t_student, (teacher - centre) / t_teacher, strict=True):
        terms += [-sum(math.exp(t[k] - logsumexp([*t])) * (s[k] - logsumexp([*s])) for k in range(len(s)))]
    return sum(terms) / len(terms)


def masked_mse_by_hand(predicted: np.ndarray, patches: np.ndarray, masked: np.ndarray) -> float:
    """Tian et al. 2023: mean over the pixels of masked patches, each patch normalised by its own pixels."""
    errors = []
    for i, j in zip(*masked.nonzero(), strict=True):
        wanted = (patches[i, j] - patches[i, j].mean()) / math.sqrt(patches[i, j].var(ddof=1) + 1e-6)
        errors += [(a - b) ** 2 for a, b in zip(predicted[i, j], wanted, strict=True)]
    return sum(errors) / len(errors)


Case = tuple[Callable[..., torch.Tensor], Callable[..., float], list[np.ndarray], list[float]]


def case(name: str, n: int = 6, dim: int = 5) -> Case:
    """An objective, the same by hand, random float64 arrays for it, and its numbers."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, n, dim)) * 3 + 1
    arrays = {
        "info_nce": [a, b, rng.normal(size=(dim, 9))],
        "dino": [a, b, rng.normal(size=(1, dim))],
        "masked_mse": [*rng.normal(size=(2, n, 4, dim)), np.arange(4 * n).reshape(n, 4) % 3 > 0],
    }
    numbers = {"nt_xent": [0.3], "info_nce": [0.3], "barlow_twins": [0.0051], "dino": [0.1, 0.04]}
    return getattr(objectives, name), globals()[f"{name}_by_hand"], arrays.get(name, [a, b]), numbers.get(name, [])


ALL = ["byol", "simsiam", "nt_xent", "info_nce", "barlow_twins", "vicreg", "dino", "masked_mse"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("n", "dim"), [(2, 2), (7, 3), (16, 24)])
def test_every_objective_equals_its_formula(name, n, dim):
    objective, by_hand, arrays, numbers = case(name, n, dim)
    loss = objective(*map(torch.tensor, arrays), *numbers)
    assert loss.dtype == torch.float64
    assert loss.shape == ()
    assert loss.item() == pytest.approx(by_hand(*arrays, *numbers), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_gradients(name):
    objective, _, arrays, numbers = case(name)
    tensors = [torch.tensor(a) for a in arrays]
    floats = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    assert torch.autograd.gradcheck(lambda *given: objective(*given, *tensors[len(given) :], *numbers), floats)


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_is_computed_in_float32_even_under_autocast(name):
    objective, by_hand, arrays, numbers = case(name, 16, 24)
    tensors = [torch.tensor(a) for a in arrays]
    rounded = [t.bfloat16() if t.is_floating_point() else t for t in tensors]
    exact = by_hand(*(t.double().numpy() if t.is_floating_point() else t.numpy() for t in rounded), *numbers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(*rounded, *numbers)
        single = objective(*(t.float() for t in rounded), *numbers)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=2e-5)
    assert single.item() == pytest.approx(exact, rel=2e-5), "autocast must not narrow what came in float32"


def eye(n: int, dim: int, first: int = 0) -> torch.Tensor:
    return torch.eye(dim)[first : first + n]


def test_nt_xent_known_values():
    z = eye(4, 8)
    own, other = 1 / 0.5, 0.0
    assert objectives.nt_xent(z, z * 3, 0.5).item() == pytest.approx(math.log(math.exp(own) + 6) - own), "identical"
    assert objectives.nt_xent(z, eye(4, 8, 4), 0.5).item() == pytest.approx(math.log(7) - other), "all orthogonal"
    collapsed = torch.ones(4, 8)
    assert objectives.nt_xent(collapsed, collapsed, 0.1).item() == pytest.approx(math.log(7)), "2N - 1 alternatives"


def test_info_nce_known_values():
    q, queue = eye(3, 8), eye(5, 8, 3).T
    assert objectives.info_nce(q, q, queue, 0.5).item() == pytest.approx(math.log(math.exp(2) + 5) - 2)
    assert objectives.info_nce(q, eye(3, 8, 5), queue, 0.5).item() == pytest.approx(math.log(6))
    assert objectives.info_nce(q, q, 7 * queue, 0.5).item() == pytest.approx(math.log(math.exp(2) + 5) - 2)


def test_barlow_twins_known_values():
    z = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert objectives.barlow_twins(z, 5 * z + 3, 0.1).item() == pytest.approx(0, abs=1e-6), "scale and shift are free"
    assert objectives.barlow_twins(z, -z, 0.1).item() == pytest.approx(8), "(1 + 1)^2 for each feature"
    assert objectives.barlow_twins(z, z.flip(1), 0.1).item() == pytest.approx(2.2), "features exchanged"
    same = z[:, :1].expand(4, 2)
    assert objectives.barlow_twins(same, same, 0.1).item() == pytest.approx(0.2), "redundant"


def test_vicreg_known_values():
    z = 5 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert objectives.vicreg(z, z).item() == pytest.approx(0, abs=1e-6)
    assert objectives.vicreg(z, z + 2).item() == pytest.approx(25 * 4)
    constant = torch.ones(4, 2)
    assert objectives.vicreg(constant, constant).item() == pytest.approx(25 * (1 - 0.01)), "sqrt(0 + 1e-4)"
    assert objectives.vicreg(z, z + 2, invariance=0.5, variance=0, covariance=0).item() == pytest.approx(2)


def test_simsiam_known_values():
    p = torch.tensor([[3.0, 0.0]])
    assert objectives.simsiam(p, 2 * p).item() == pytest.approx(-1)
    assert objectives.simsiam(p, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(0)


def test_dino_known_values():
    teacher, flat = torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 4)
    assert objectives.dino(flat, teacher, flat, 0.1, 0.04).item() == pytest.approx(math.log(4)), "a flat student"
    assert objectives.dino(teacher, teacher, flat, 0.1, 0.04).item() == pytest.approx(0, abs=2e-3), "agreement"
    flattened = objectives.dino(teacher, teacher, teacher, 0.1, 0.04).item()
    assert flattened == pytest.approx(0.75 * 10, rel=1e-3), "centred away, the teacher asks for every prototype alike"


def test_masked_mse_known_values():
    patches = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
    masked = torch.tensor([[True, False]])
    wanted = torch.tensor([[[-1, 1], [0, 0]]]) / math.sqrt(2)
    assert objectives.masked_mse(wanted, patches, masked).item() == pytest.approx(0, abs=1e-6)
    assert objectives.masked_mse(wanted + 2, patches, masked).item() == pytest.approx(4, rel=1e-5)
    elsewhere = wanted + torch.tensor([[[0.0, 0], [9, 9]]])
    assert objectives.masked_mse(elsewhere, patches, masked).item() == pytest.approx(0, abs=1e-6), "visible: no matter"
    assert objectives.masked_mse(wanted, patches, ~masked).isfinite(), "a patch without contrast"


@pytest.mark.parametrize("name", ["byol", "simsiam", "nt_xent", "info_nce", "barlow_twins", "vicreg", "dino"])
def test_a_batch_of_one_is_right_and_has_a_finite_gradient(name):
    objective, by_hand, arrays, numbers = case(name, 1, 4)
    tensors = [torch.tensor(a, dtype=torch.float32).requires_grad_() for a in arrays]
    loss = objective(*tensors, *numbers)
    loss.backward()
    assert all(t.grad is None or t.grad.isfinite().all() for t in tensors)
    if name == "nt_xent":
        assert loss.item() == 0, "nothing to be confused with"
    elif name == "barlow_twins":
        assert loss.item() == pytest.approx(4), "no correlation in one sample: 1 for each feature"
    elif name == "vicreg":
        expected = 25 * ((arrays[0] - arrays[1]) ** 2).mean() + 25 * 0.99
        assert loss.item() == pytest.approx(expected, rel=1e-5), "no variance in one sample"
    else:
        assert loss.item() == pytest.approx(by_hand(*arrays, *numbers), rel=1e-5)


@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "dino"])
def test_a_tiny_temperature_does_not_overflow(name):
    objective, by_hand, arrays, numbers = case(name, 8, 16)
    numbers = [1e-4] * len(numbers)
    tensors = [torch.tensor(a, dtype=torch.float32).requires_grad_() for a in arrays]
    loss = objective(*tensors, *numbers)
    loss.backward()
    assert loss.item() == pytest.approx(by_hand(*arrays, *numbers), rel=1e-4)
    assert all(t.grad is None or t.grad.isfinite().all() for t in tensors)


def test_barlow_twins_does_not_blow_up_constant_features():
    torch.manual_seed(0)
    za, zb = torch.randn(2, 8, 3)
    with torch.no_grad():
        za[:, 1], zb[:, 1] = 0.1, 0.1  # their mean is not exactly 0.1 in float32
    za.requires_grad_()
    loss = objectives.barlow_twins(za, zb, 0.0051)
    loss.backward()
    kept = objectives.barlow_twins(za[:, ::2], zb[:, ::2], 0.0051)
    assert loss.item() == pytest.approx(kept.item() + 1, rel=1e-4), "correlates with nothing: (1 - 0)^2"
    assert za.grad.abs().max() < 100


def test_a_symmetric_objective_does_not_mind_which_view_is_first():
    for name in ("nt_xent", "barlow_twins", "vicreg"):
        objective, _, (a, b), numbers = case(name)
        a, b = torch.tensor(a), torch.tensor(b)
        torch.testing.assert_close(objective(a, b, *numbers), objective(b, a, *numbers))
        order = torch.tensor([3, 1, 0, 5, 4, 2])
        torch.testing.assert_close(objective(a, b, *numbers), objective(a[order], b[order], *numbers))


def test_byol_known_values():
    p = torch.tensor([[3.0, 0.0]])
    assert objectives.byol(p, p * 5).item() == pytest.approx(0, abs=1e-6)
    assert objectives.byol(p, torch.tensor([[0.0, 2.0]])).item() == pytest.approx(2)
    assert objectives.byol(p, -p).item() == pytest.approx(4)
    both = objectives.byol(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert both.item() == pytest.approx(2), "the mean over the batch, not the sum"


def test_byol_survives_huge_and_zero_vectors():
    p = torch.tensor([[1e18, 1e18], [0.0, 0.0]], requires_grad=True)
    loss = objectives.byol(p, torch.tensor([[1e18, 1e18], [1.0, 0.0]]))
    loss.backward()
    assert loss.isfinite()
    assert p.grad.isfinite().all()
