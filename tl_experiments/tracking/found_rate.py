"""A range test that is shown and kept: the rate that `lr=auto` stands for."""

from pathlib import Path

from tl_experiments.engine.lr_finder import MakeTrainer, RangeTest, range_test
from tl_experiments.runtime.files import publish_text
from tl_experiments.strategies.base import Workload
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.pictures import save_picture
from tl_experiments.tracking.rate_picture import range_picture

PICTURE, CURVE = "lr_finder.png", "lr_finder.csv"


def find_rate(workload: Workload, make_trainer: MakeTrainer, *, console: Console, folder: Path) -> RangeTest:
    """Run the range test, say what it suggests, and leave its curve in two files of the folder.

    Raises:
        SettingError: nothing can be told, or there is nothing to take steps with.
        DataError: an image cannot be decoded.
    """
    found = range_test(workload, make_trainer, on_step=console.work("range test of the learning rate"))
    rows = zip(found.rates, found.losses, found.smoothed, strict=True)
    lines = ["lr,loss,smoothed", *(f"{rate:.6g},{loss:.6g},{smoothed:.6g}" for rate, loss, smoothed in rows)]
    publish_text(folder / CURVE, "\n".join(lines) + "\n")
    save_picture(range_picture(found), folder / PICTURE)
    console.notice(f"lr     {found.suggestion:.3g}, by a range test of {len(found.rates)} steps: {folder / PICTURE}")
    return found
