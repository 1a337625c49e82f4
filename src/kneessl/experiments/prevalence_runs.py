"""The trainings of `kneessl prevalence`: on which exams, and by which commands."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kneessl.errors import UserError
from kneessl.evaluation.rare_positives import BALANCED, LINEAR, MODEL, SUPERVISED
from kneessl.exams.folder import Plane
from kneessl.experiments.jobs import Words
from kneessl.methods import MethodName
from kneessl.model.locked import WEIGHTS


@dataclass(frozen=True)
class TrainingSet:
    """The exams of one prevalence under one seed: where they are, and the words of commands on them."""

    out: Path
    prevalence: float
    seed: int
    task: str
    plane: Plane

    @property
    def name(self) -> str:
        """Such as 18.4-percent-seed0."""
        return f"{100 * self.prevalence:g}-percent-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """The exam folder."""
        return self.out / "exams" / self.name

    def run(self, kind: str) -> Path:
        """The folder of one of its runs."""
        return self.out / "runs" / f"{self.name}-{kind}"

    @property
    def encoder(self) -> Path:
        """The run folder of its pre-training."""
        return self.run("encoder") / "encoder"

    def common(self, config: str) -> Words:
        """Options that every training on its exams has."""
        return ["--plane", self.plane, "--seed", str(self.seed), "--config", str(self.out / config), "--resume"]

    def tune(self, *options: str, config: str = "finetune.yaml") -> Words:
        """Fine-tuning on its exams."""
        return ["finetune", str(self.folder), "--task", self.task, *self.common(config), *options]

    def read(self, out: Path, *start: str) -> Words:
        """Fitting a linear classifier to frozen features, by the labels of this seed's balanced exams."""
        return replace(self, prevalence=BALANCED).tune(*start, "--frozen", "--out", str(out), config="linear.yaml")

    def evaluate(self, model: Path, *against: str) -> Words:
        """Evaluating a model on the valid exams, beside another; both lie in the folder of their run."""
        return ["evaluate", str(model), str(self.folder), *against, "--out", str(model.parent)]


@dataclass(frozen=True)
class PrevalencePretraining:
    """Pre-train an encoder on a training set without its labels, and fit a linear classifier to its features."""

    exams: TrainingSet
    method: MethodName

    @property
    def folder(self) -> Path:
        """Of all its commands."""
        return self.exams.run("encoder")

    def commands(self) -> Iterator[Words]:
        """Pre-train, read, evaluate."""
        exams, encoder = self.exams, str(self.exams.encoder)
        yield ["pretrain", str(exams.folder), "--method", self.method, *exams.common("pretrain.yaml"), "--out", encoder]
        yield exams.read(self.folder / LINEAR, "--from", encoder)
        yield exams.evaluate(self.folder / LINEAR)


@dataclass(frozen=True)
class PrevalenceFineTuning:
    """Fine-tune a classifier on a training set, from either start."""

    exams: TrainingSet
    arm: str
    balance: str

    @property
    def folder(self) -> Path:
        """Of all its commands."""
        return self.exams.run(f"{self.arm}-{self.balance}")

    def commands(self) -> Iterator[Words]:
        """Fine-tune, and evaluate; without pre-training, the encoder has no run of its own, so it is read here too."""
        exams, model, linear = self.exams, self.folder / MODEL, self.folder / LINEAR
        options = ["--balance", self.balance, "--out", str(model)]
        if self.arm == SUPERVISED:
            yield exams.tune(*options)
            yield exams.read(linear, "--weights", str(model / WEIGHTS))
            yield exams.evaluate(model, "--against", str(linear))
            return
        if not (exams.encoder / "run.json").is_file():
            raise UserError("the pre-training that it starts from failed")
        yield exams.tune("--from", str(exams.encoder), *options)
        yield exams.evaluate(model)
