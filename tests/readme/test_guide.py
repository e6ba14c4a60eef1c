"""Every command of the guide is run, but for those that the README has too."""

from pathlib import Path

import pytest

from tests.conftest import compose_test_member
from tests.faults.scorecard import FULL
from tests.readme.pages import GUIDE, README, on_little, runs, shows_its_end, type_on_little
from tl_experiments.experiment import run_experiments


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in runs(GUIDE) if command not in runs(README)])
def test_guided(command: str, images: Path, desk: Path, tmp_path: Path) -> None:
    """Single runs are untracked and in this process, but for the full scale: those of the README are typed."""
    program, arguments = on_little(command, images=images)
    if program == "run.py" and "-m" not in arguments and not FULL:
        [result] = run_experiments([compose_test_member(tmp_path / "run", *arguments)])
        assert 0 <= result.val_acc_best <= 1
        return
    code, told = type_on_little(command, images=images, desk=desk)
    assert code == 0, told
    assert shows_its_end(told), told
