"""The methods by name: how each is built, and over what it pools unless told otherwise.

May import only `nets` and `views`. Begin with `method.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from kneessl.errors import UserError
from kneessl.methods.barlow_twins import BarlowTwins
from kneessl.methods.byol import BYOL
from kneessl.methods.dino import DINO
from kneessl.methods.jigsaw import Jigsaw
from kneessl.methods.manna2022 import Manna2022
from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.moco import MoCo
from kneessl.methods.puzzle_contrast import MoCoV2Jigsaw, SimCLRJigsaw
from kneessl.methods.rotation import Rotation
from kneessl.methods.settings import require_whole
from kneessl.methods.simclr import SimCLR
from kneessl.methods.simsiam import SimSiam
from kneessl.methods.spark import SparK
from kneessl.methods.sslm import SSLM
from kneessl.methods.vicreg import VICReg
from kneessl.nets.encoder import ClipEncoder, Pool
from kneessl.nets.sslm import SSLMEncoder
from kneessl.nets.weights import load_weights

__all__ = ["METHODS", "Encoder", "Method", "MethodName", "Outcome", "Recipe", "make_method", "with_queue"]

MethodName = Literal[
    "byolmed2d", "byol", "simclr", "moco_v1", "moco_v2", "barlow_twins", "jigsaw", "rotation", "sslm", "manna2022",
    "simclr_jigsaw", "moco_v2_jigsaw", "simsiam", "vicreg", "dino", "spark",
]  # fmt: skip
Settings = Mapping[str, int | float]


@dataclass(frozen=True)
class Recipe:
    """How a method is built.

    Args:
        build: The method's class: encoder first, then its settings by name.
        pools: Over what its encoder may pool, what the method is known for first: "none" makes every slice a sample
            of its own, "max" and "mean" a whole clip.
        defaults: Settings in which this name differs from the class's own.
        network: The encoder's name, by which a classifier is built around it.
    """

    build: Callable[..., Method]
    pools: tuple[Pool, ...] = ("none", "max", "mean")
    defaults: Settings = field(default_factory=dict)
    network: str = "resnet18"

    def settings(self) -> dict[str, int | float]:
        """Every setting that the method takes, with its default."""
        return parameters(ENCODERS[self.network]) | parameters(self.build) | dict(self.defaults)

    @property
    def two_views(self) -> bool:
        """Whether it learns from the views T and T' and nothing else."""
        return getattr(self.build, "inputs", None) is Method.inputs


def parameters(build: Callable[..., Any]) -> dict[str, int | float]:
    """The arguments of `build` after the first, with their defaults."""
    return {p.name: p.default for p in list(signature(build).parameters.values())[1:]}


def sslm_encoder(_: Pool, width: int = 256) -> SSLMEncoder:
    """SSLM's own network, `width` channels a branch."""
    require_whole(width=width)
    return SSLMEncoder(width)


def resnet18(pool: Pool) -> ClipEncoder:
    """ResNet-18 as for ImageNet."""
    return ClipEncoder(pool)


def resnet18_cifar(pool: Pool) -> ClipEncoder:
    """ResNet-18 for pictures of 32 x 32."""
    return ClipEncoder(pool, "cifar")


ENCODERS: dict[str, Callable[..., Any]] = {
    "resnet18": resnet18,
    "resnet18_cifar": resnet18_cifar,
    "sslm": sslm_encoder,
}
"""Pooling, then settings of its own -> an encoder with random weights."""
SINGLE: tuple[Pool, ...] = ("none",)
"""For methods that take slices apart, so that there is no clip to pool over."""

METHODS: dict[MethodName, Recipe] = {
    "byolmed2d": Recipe(BYOL, pools=("max", "mean", "none")),
    "byol": Recipe(BYOL),
    "simclr": Recipe(SimCLR),
    "moco_v1": Recipe(MoCo, defaults={"temperature": 0.07, "mlp": False}),
    "moco_v2": Recipe(MoCo),
    "barlow_twins": Recipe(BarlowTwins),
    "jigsaw": Recipe(Jigsaw, pools=SINGLE),
    "rotation": Recipe(Rotation, pools=SINGLE),
    "sslm": Recipe(SSLM, pools=SINGLE, network="sslm"),
    "manna2022": Recipe(Manna2022, pools=SINGLE),
    "simclr_jigsaw": Recipe(SimCLRJigsaw, pools=SINGLE),
    "moco_v2_jigsaw": Recipe(MoCoV2Jigsaw, pools=SINGLE),
    "simsiam": Recipe(SimSiam),
    "vicreg": Recipe(VICReg),
    "dino": Recipe(DINO),
    "spark": Recipe(SparK, pools=SINGLE),
}


def make_method(
    name: MethodName, pool: Pool | None, given: Settings, weights: Path | None = None, network: str | None = None
) -> Method:
    """Build a method with random weights (from PyTorch's global generator), the encoder's drawn first.

    Args:
        name: Which.
        pool: Over what to pool; None for what the method is known for.
        given: Settings other than the method's defaults.
        weights: File to start the encoder from; what of it was taken is printed.
        network: Another encoder than the method's own, from `ENCODERS`.

    Raises:
        UserError: the method does not pool so, has no such setting, or it is out of its range.
    """
    recipe = METHODS[name]
    known = recipe.settings()
    for key, value in given.items():
        if key not in known:
            raise UserError(f"method {name} has no setting {key}; it has {', '.join(known) or 'none'}")
        if not isinstance(value, int | float) or not value >= 0:
            raise UserError(f"settings.{key} is {value}; it must be a number, 0 or more")
    if pool is not None and pool not in recipe.pools:
        raise UserError(f"method {name} works on single slices; leave out --pool {pool}")
    make_encoder, chosen = ENCODERS[network or recipe.network], known | dict(given)
    of_encoder = {key: chosen.pop(key) for key in parameters(make_encoder)}
    encoder = make_encoder(pool or recipe.pools[0], **of_encoder)
    if weights is not None:
        print(load_weights(encoder.trunk, weights))
    return recipe.build(encoder, **chosen)


def with_queue(method: MethodName, settings: dict[str, int | float], samples: int) -> dict[str, int | float]:
    """The settings, with a queue that holds at most half of an epoch's samples where none is asked for.

    Raises:
        UserError: the queue asked for holds as many keys as there are samples, so that each would meet itself.
    """
    queue = METHODS[method].settings().get("queue")
    if queue is None:
        return settings
    if settings.get("queue", 0) >= samples:
        raise UserError(f"settings.queue is {settings['queue']}; it must stay below the {samples} samples of an epoch")
    return {"queue": max(1, min(int(queue), samples // 2))} | settings
