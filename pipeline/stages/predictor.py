"""What predicts the blocks of a run: a network on its engine, as the config asks for."""

from __future__ import annotations

from pathlib import Path

from ..networks import EmbeddingNetwork, build_engine, choose_autocast
from ..networks.compact import compact
from ..networks.eight_bits import require_unchanged
from ..run import Run
from .inference import Predictor
from .turned_prediction import TurnedPredictor, offsets_of, views_of


def build_predictor(
    run: Run, network: EmbeddingNetwork, engine: str, rounded: Path | None
) -> Predictor | TurnedPredictor:
    """A predictor of the affinities at `predict.offsets`.

    Args:
        run: the run.
        network: on its device, in evaluation mode.
        engine: what runs it.
        rounded: the file of the network in eight bits, if it predicts so.

    Raises:
        UserError: that file has changed.
    """
    predict = run.config.predict
    network = compact(network, offsets_of(predict.augment, network, predict.offsets))
    autocast = choose_autocast(predict.autocast, next(network.parameters()).device)
    if rounded is not None:
        require_unchanged(rounded)
    built = build_engine(engine, network, autocast, run.config.cluster.threads_per_worker, rounded)
    intensity = run.intensity(run.config.volumes.segment.source)
    if predict.augment == "none":
        return Predictor(network, predict.offsets, built, intensity)
    return TurnedPredictor(network, predict.offsets, views_of(predict.augment, network), built, intensity)
