"""The tapped layers of a U-Net: `encoder_0` … (finest first), `bottleneck`, `decoder_0` … (finest first)."""

from __future__ import annotations

from collections.abc import Sequence

from funlib.geometry import Coordinate

from .base import Tap
from .geometry import unet_levels


def unet_taps(
    factors: Sequence[Coordinate], encoder_widths: Sequence[int], decoder_widths: Sequence[int], *, valid: bool
) -> list[Tap]:
    """Describe every block of a U-Net.

    Args:
        factors: pooling factors between the levels, finest first.
        encoder_widths: channels of each level of the way down, the bottleneck last.
        decoder_widths: channels of each level of the way up, finest first.
        valid: convolutions without padding.
    """
    levels = unet_levels(factors, valid=valid)
    bottom = len(levels) - 1
    taps = []
    for index, (level, channels) in enumerate(zip(levels, encoder_widths, strict=True)):
        name = "bottleneck" if index == bottom else f"encoder_{index}"
        taps.append(Tap(name, channels, level.downsampling, level.encoder_view, level.encoder_begin))
    for index, channels in enumerate(decoder_widths):
        level = levels[index]
        taps.append(Tap(f"decoder_{index}", channels, level.downsampling, level.decoder_view, level.decoder_begin))
    return taps
