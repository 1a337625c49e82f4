"""DINO (Caron et al. 2021): match a momentum teacher's distribution over prototypes, from smaller crops too."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from kneessl import objectives
from kneessl.distributed import gather
from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.settings import require_positive, require_share, require_whole
from kneessl.nets.heads import Prototypes, mlp
from kneessl.nets.momentum import ema_update, tau_at
from kneessl.views.inputs import ViewMaker

LOCAL_AREA = (0.05, 0.4)
SMALLEST = 32
"""Side of a small crop in pixels, at the least: what `Preprocessing` asks of every slice."""


class DINO(Method):
    """The student sees all crops, the teacher the global ones; each student view predicts the teacher's other views.

    Centring keeps one prototype from winning everywhere, sharpening (a low teacher temperature) keeps all from being
    equal. Crops of one size pass as one batch, as in the authors' code. Times are shares of training, where the paper
    counts epochs (of 100): the last layer is frozen for the first, the temperature rises for 30.

    Args:
        encoder: f.
        hidden: Width of the projector's two hidden layers.
        bottleneck: Its output size, normalised before the prototypes.
        prototypes: How many; 65,536 in the paper, for ImageNet.
        local: Small crops of each clip.
        tau: First value of the teacher's decay, rising to 1 along a cosine.
        student_temperature: Of the student.
        first_temperature: Of the teacher, at first.
        teacher_temperature: Of the teacher, after the warm-up.
        warmup: Share of training over which the teacher's temperature rises, linearly.
        freeze: Share of training during which the student's prototypes stand still.
        centre_momentum: Decay of the centre, a moving average of the teacher's logits over all processes.
    """

    centre: Tensor
    temperature: Tensor

    def __init__(
        self,
        encoder: Encoder,
        hidden: int = 2048,
        bottleneck: int = 256,
        prototypes: int = 4096,
        local: int = 4,
        tau: float = 0.996,
        student_temperature: float = 0.1,
        first_temperature: float = 0.04,
        teacher_temperature: float = 0.07,
        warmup: float = 0.3,
        freeze: float = 0.01,
        centre_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        require_whole(hidden=hidden, bottleneck=bottleneck, prototypes=prototypes)
        require_whole(0, local=local)
        require_share(tau=tau, warmup=warmup, freeze=freeze, centre_momentum=centre_momentum)
        require_positive(student_temperature=student_temperature, first_temperature=first_temperature)
        require_positive(teacher_temperature=teacher_temperature)
        self.encoder = encoder
        self.projector = mlp(encoder.features, hidden, hidden, bottleneck, norm=False, activation=nn.GELU)
        self.prototypes = Prototypes(bottleneck, prototypes, frozen=freeze > 0)
        self.teacher = deepcopy(nn.Sequential(self.encoder, self.projector, self.prototypes)).requires_grad_(False)
        self.local, self.tau, self.warmup, self.freeze = local, tau, warmup, freeze
        self.student_temperature, self.centre_momentum = student_temperature, centre_momentum
        self.first_temperature, self.teacher_temperature = first_temperature, teacher_temperature
        self.register_buffer("centre", torch.zeros(prototypes))
        self.register_buffer("temperature", torch.tensor(first_temperature if warmup > 0 else teacher_temperature))

    def inputs(self, clips: Tensor, make: ViewMaker, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Views T and T', and `local` crops of T with a smaller area and 3/7 of the side (96 of 224 in the paper)."""
        view, size = replace(make.first, crop_area=LOCAL_AREA), max(SMALLEST, round(make.preprocessing.size * 3 / 7))
        local = (make(clips, view, generator, size) for _ in range(self.local))
        return *super().inputs(clips, make, generator), *local

    def forward(self, view1: Tensor, view2: Tensor, *local: Tensor) -> Outcome:
        """Two global views `(B, S, H, W)`, small ones `(B, S, h, w)` -> mean cross-entropy over pairs of views."""
        batches = [torch.cat([view1, view2])] + ([torch.cat(local)] if local else [])
        embeddings = [self.projector(self.encoder(batch)) for batch in batches]
        y1, y2 = embeddings[0].detach().chunk(2)
        students = self.prototypes(torch.cat(embeddings)).chunk(2 + len(local))
        with torch.no_grad():
            wanted = self.teacher(batches[0])
            mean = gather(wanted.mean(0, keepdim=True)).mean(0)
        terms = [
            objectives.dino(student, teacher, self.centre, self.student_temperature, self.temperature)
            for i, teacher in enumerate(wanted.chunk(2))
            for j, student in enumerate(students)
            if i != j
        ]
        self.centre.lerp_(mean, 1 - self.centre_momentum)  # only now: this batch is centred by those before it
        return Outcome(torch.stack(terms).mean(), y1, y2)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student, and go on with both warm-ups."""
        student = nn.Sequential(self.encoder, self.projector, self.prototypes)
        ema_update(self.teacher, student, tau_at(progress, self.tau))
        risen = min(1.0, progress / self.warmup) if self.warmup else 1.0
        self.temperature.fill_(self.first_temperature + risen * (self.teacher_temperature - self.first_temperature))
        self.prototypes.frozen.fill_(progress < self.freeze)
