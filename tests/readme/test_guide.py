"""Every command of the guide is run, but for those that the README has too."""

from pathlib import Path

import pytest

from tests.readme.pages import GUIDE, README, run_on_little, runs


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in runs(GUIDE) if command not in runs(README)])
def test_guided(command: str, images: Path, desk: Path):
    run_on_little(command, images=images, desk=desk)
