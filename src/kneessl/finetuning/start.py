"""What a fine-tuning starts from: the encoder of a run or a file, and the network that fits it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from kneessl.classifier.classifier import NETWORKS, Classifier, NetworkName, build_classifier
from kneessl.classifier.heads import HeadName
from kneessl.errors import UserError
from kneessl.nets.encoder import load_encoder
from kneessl.nets.weights import load_weights, read_tensors
from kneessl.training.runs import read_record


def read_start(from_run: Path | None) -> dict[str, Any]:
    """The record of the run to start from; empty where there is none.

    Raises:
        UserError: the run is none of pre-training, or of an unknown network.
    """
    if from_run is None:
        return {}
    start = read_record(from_run)
    if start.get("kind") != "pretrain":
        raise UserError(f"{from_run} is not a pre-training run; --from wants what `kneessl pretrain` has written")
    if start.get("network", "resnet18") not in NETWORKS:
        raise UserError(f"{from_run} is of network {start['network']}; known are {', '.join(NETWORKS)}")
    return start


LINEAR: dict[str, NetworkName] = {"resnet18": "resnet18", "sslm": "sslm_linear", "sslm_linear": "sslm_linear"}
"""Which classifier reads a network's frozen features by one linear layer."""


def chosen_network(
    network: NetworkName | None, head: HeadName | None, frozen: bool, start: Mapping[str, Any]
) -> NetworkName:
    """The network asked for, or that of the run whose record is `start`; to read frozen features, its linear one.

    Raises:
        UserError: as `linear_network`.
    """
    network = network or start.get("network", "resnet18")
    return linear_network(network, head) if frozen else network


def linear_network(network: NetworkName, head: HeadName | None) -> NetworkName:
    """The classifier for linear evaluation of a network.

    Raises:
        UserError: there is none.
    """
    if network not in LINEAR:
        raise UserError(f"network {network} has no linear evaluation; leave out --frozen, or take --network resnet18")
    if head not in {None, "max", "mean"}:
        raise UserError(f"head {head} is no linear layer; leave out --frozen, or take --head max or mean")
    return LINEAR[network]


def start_classifier(
    network: NetworkName, head: HeadName | None, tasks: int, from_run: Path | None, weights: Path | None
) -> tuple[Classifier, str]:
    """A classifier with random weights, its encoder's from a run or a file if named, and what was taken of the file.

    Raises:
        UserError: the weights cannot be read, or are of another network.
    """
    path = None if from_run is None else from_run / "encoder.safetensors"
    classifier = build_classifier(network, head, tasks, {} if path is None else read_tensors(path))
    if path is not None:
        load_encoder(classifier.encoder, path)
    return classifier, "" if weights is None else load_weights(cast(nn.Module, classifier.encoder.trunk), weights)
