"""The reliability diagram shows what was counted, before and after."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tl_experiments.engine.calibration import reliability
from tl_experiments.tracking.pictures import save_picture
from tl_experiments.tracking.reliability import reliability_diagram


@pytest.mark.parametrize("num_samples", [1, 500])
def test_it_shows_bins_that_hold_images_before_and_after(num_samples: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(num_samples, 4, generator=generator)
    labels = torch.multinomial((logits / 3).softmax(dim=1), 1, generator=generator)[:, 0]
    before, after = (reliability((logits / temperature).softmax(dim=1), labels) for temperature in (1.0, 3.0))
    figure = reliability_diagram(before, after=after, temperature=3.0)
    for axes, bins in zip(figure.axes, (before, after), strict=True):
        assert f"{bins.error:.4f}" in axes.get_title()
        points = np.array(axes.lines[1].get_xydata())
        assert len(points) == np.count_nonzero(bins.share) > 0
        assert np.abs(points[:, 0] - points[:, 1]) @ bins.share[bins.share > 0] == pytest.approx(bins.error)
    assert "temperature 3:" in figure.axes[1].get_title()
    save_picture(figure, tmp_path / "picture.png")
    assert len(Image.open(tmp_path / "picture.png").convert("RGB").getcolors(maxcolors=2**24) or []) > 10
