"""Every command of the guide is run, but for those that the README has too."""

from pathlib import Path

import pytest

from tests.readme.pages import GUIDE, README, runs, shows_its_end, type_on_little


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in runs(GUIDE) if command not in runs(README)])
def test_guided(command: str, images: Path, desk: Path):
    code, told = type_on_little(command, images=images, desk=desk)
    assert code == 0, told
    assert shows_its_end(told), told
