"""Networks by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psutil
import torch
from pydantic import BaseModel, ValidationError

from ..config import MalaConfig, MalaTinyConfig, NetworkConfig, ResidualUnetConfig, SectionUnetConfig
from ..config.mistakes import first_mistake
from ..errors import UserError
from ..units import memory_size
from .base import EmbeddingNetwork
from .mala import MalaNetwork
from .residual_unet import ResidualUnetNetwork
from .section_unet import SectionUnetNetwork

NETWORKS: dict[str, tuple[type[NetworkConfig], Callable[[Any], EmbeddingNetwork]]] = {
    "mala": (MalaConfig, MalaNetwork),
    "mala_tiny": (MalaTinyConfig, MalaNetwork),
    "residual_unet": (ResidualUnetConfig, ResidualUnetNetwork),
    "section_unet": (SectionUnetConfig, SectionUnetNetwork),
}

BYTES_PER_WEIGHT = 4


def network_names() -> list[str]:
    """All names that `build_network` knows."""
    return sorted(NETWORKS)


def build_network(network: NetworkConfig | dict[str, Any] | str, **settings: Any) -> EmbeddingNetwork:
    """Build a network with fresh weights.

    Args:
        network: a network's config, the same as JSON values, or its name.
        settings: beside JSON values or a name, the config's fields that differ from their defaults.

    Raises:
        UserError: unknown name, settings that do not fit the network, or more weights than the machine has room for.
    """
    if isinstance(network, BaseModel):
        if settings:
            raise TypeError("settings go with a name or JSON values; a config has its own")
        return _built(network)
    document = network if isinstance(network, dict) else {"name": network}
    return _built(parse_network_config({**document, **settings}))


def _built(config: NetworkConfig) -> EmbeddingNetwork:
    """The network of a config, if the machine has room for its weights: without, torch ends with an error of its own.

    Raises:
        UserError: it has not.
    """
    build = NETWORKS[config.name][1]
    try:
        with torch.device("meta"):
            count = build(config).parameter_count()
    except (RuntimeError, OverflowError, TypeError) as error:  # extents that torch cannot even count
        reason = str(error).splitlines()[0]
        raise UserError(f"the network {config.name} cannot be built: {reason}", "network.widths") from error
    room = psutil.virtual_memory().total
    if BYTES_PER_WEIGHT * count > room:
        raise UserError(
            f"the network {config.name} would have {count:,} weights, more than the {memory_size(room)} of memory here "
            "hold; make it narrower",
            "network.widths",
        )
    return build(config)


def parse_network_config(document: dict[str, Any]) -> NetworkConfig:
    """The config of a network from JSON values.

    Raises:
        UserError: unknown name, or settings that do not fit the network.
    """
    name = document.get("name")
    if name not in NETWORKS:
        raise UserError(f"there is no network {name!r}; known are {', '.join(network_names())}")
    config_class: Any = NETWORKS[name][0]
    try:
        result: NetworkConfig = config_class.model_validate_json(json.dumps(document))
        return result
    except ValidationError as error:
        raise first_mistake(error, config_class) from None
