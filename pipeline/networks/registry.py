"""Networks by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from ..config import MalaConfig, MalaTinyConfig, NetworkConfig, ResidualUnetConfig, SectionUnetConfig
from ..config.mistakes import first_mistake
from ..errors import UserError
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


def network_names() -> list[str]:
    """All names that `build_network` knows."""
    return sorted(NETWORKS)


def build_network(network: NetworkConfig | dict[str, Any] | str, **settings: Any) -> EmbeddingNetwork:
    """Build a network with fresh weights.

    Args:
        network: a network's config, the same as JSON values, or its name.
        settings: beside JSON values or a name, the config's fields that differ from their defaults.

    Raises:
        UserError: unknown name, or settings that do not fit the network.
    """
    if isinstance(network, BaseModel):
        if settings:
            raise TypeError("settings go with a name or JSON values; a config has its own")
        return NETWORKS[network.name][1](network)
    document = network if isinstance(network, dict) else {"name": network}
    config = parse_network_config({**document, **settings})
    return NETWORKS[config.name][1](config)


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
