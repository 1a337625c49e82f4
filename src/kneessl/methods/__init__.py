"""The methods by name: how each is built, and over what it pools unless told otherwise.

May import only `nets` and `views`. Begin with `method.py`.

A new method is a file of its own in this folder and an entry of `METHODS`; nothing else has to name it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from kneessl.errors import UserError
from kneessl.methods.barlow_twins import BarlowTwins
from kneessl.methods.byol import BYOL
from kneessl.methods.byol_vc import BYOLVC
from kneessl.methods.dino import DINO
from kneessl.methods.jigsaw import Jigsaw
from kneessl.methods.manna2022 import Manna2022
from kneessl.methods.method import Encoder, Method, MethodSettings, Outcome
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

__all__ = ["METHODS", "Encoder", "Method", "MethodName", "MethodSettings", "MethodSpec", "Outcome", "make_method"]


@dataclass(frozen=True)
class MethodSpec:
    """What a method's name stands for.

    Args:
        build: The method's class: encoder first, then its settings by name.
        pools: Over what its encoder may pool, what the method is known for first: "none" makes every slice a sample
            of its own, "max" and "mean" a whole clip.
        defaults: Settings in which this name differs from the class's own.
        network: The encoder's name, by which a classifier is built around it.
    """

    build: type[Method]
    pools: tuple[Pool, ...] = ("none", "max", "mean")
    defaults: MethodSettings = field(default_factory=dict)
    network: str = "resnet18"

    def settings(self) -> dict[str, int | float]:
        """Every setting that the method takes, with its default."""
        return parameters(ENCODERS[self.network]) | parameters(self.build) | dict(self.defaults)

    def adapt(self, given: MethodSettings, samples: int, processes: int = 1) -> MethodSettings:
        """The settings asked for, checked and adapted to a training: see `Method.adapt_settings`."""
        return self.build.adapt_settings(given, self.settings(), samples, processes)

    @property
    def two_views(self) -> bool:
        """Whether it learns from the views T and T' and nothing else."""
        return self.build.inputs is Method.inputs


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

METHODS: dict[str, MethodSpec] = {
    "byolmed2d": MethodSpec(BYOL, pools=("max", "mean", "none")),
    "byol_vc": MethodSpec(BYOLVC),
    "byol": MethodSpec(BYOL),
    "simclr": MethodSpec(SimCLR),
    "moco_v1": MethodSpec(MoCo, defaults={"temperature": 0.07, "mlp": False}),
    "moco_v2": MethodSpec(MoCo),
    "barlow_twins": MethodSpec(BarlowTwins),
    "jigsaw": MethodSpec(Jigsaw, pools=SINGLE),
    "rotation": MethodSpec(Rotation, pools=SINGLE),
    "sslm": MethodSpec(SSLM, pools=SINGLE, network="sslm"),
    "manna2022": MethodSpec(Manna2022, pools=SINGLE),
    "simclr_jigsaw": MethodSpec(SimCLRJigsaw, pools=SINGLE),
    "moco_v2_jigsaw": MethodSpec(MoCoV2Jigsaw, pools=SINGLE),
    "simsiam": MethodSpec(SimSiam),
    "vicreg": MethodSpec(VICReg),
    "dino": MethodSpec(DINO),
    "spark": MethodSpec(SparK, pools=SINGLE),
}
"""Every method; the command line, comparisons and tests read this table."""

if TYPE_CHECKING:
    MethodName: TypeAlias = str
else:
    MethodName = Literal[tuple(METHODS)]  # what the command line lets choose from


def make_method(
    name: MethodName,
    pool: Pool | None,
    given: MethodSettings,
    weights: Path | None = None,
    network: str | None = None,
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
    spec = METHODS[name]
    known = spec.settings()
    for key, value in given.items():
        if key not in known:
            raise UserError(f"method {name} has no setting {key}; it has {', '.join(known) or 'none'}")
        if not isinstance(value, int | float) or not value >= 0:
            raise UserError(f"settings.{key} is {value}; it must be a number, 0 or more")
    if pool is not None and pool not in spec.pools:
        raise UserError(f"method {name} works on single slices; leave out --pool {pool}")
    make_encoder, chosen = ENCODERS[network or spec.network], known | dict(given)
    of_encoder = {key: chosen.pop(key) for key in parameters(make_encoder)}
    encoder = make_encoder(pool or spec.pools[0], **of_encoder)
    if weights is not None:
        print(load_weights(encoder.trunk, weights))
    return spec.build(encoder, **chosen)


def settings_help() -> str:
    """Every method's own settings with their defaults, a line for each method that has some."""
    lines = []
    for name, spec in METHODS.items():
        values = [f"{key} {int(v) if isinstance(v, bool) else v}" for key, v in spec.settings().items()]
        lines += [f"{name}: {', '.join(values)}"] if values else []
    return "\n".join(lines)
