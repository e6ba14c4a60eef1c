"""A range test that is shown as it goes on: the rate that `lr=auto` stands for."""

from tl_experiments.data.watch import Watch
from tl_experiments.engine.lr_finder import MakeTrainer, RangeTest, range_test
from tl_experiments.strategies.base import Workload


def find_rate(workload: Workload, make_trainer: MakeTrainer, *, watch: Watch) -> RangeTest:
    """Run the range test and say what it suggests.

    Raises:
        SettingError: nothing can be told, or there is nothing to take steps with.
        DataError: an image cannot be decoded.
    """
    found = range_test(workload, make_trainer, on_step=watch.work("range test of the learning rate"))
    watch.notice(f"lr={found.suggestion:.3g}, by a range test of {len(found.rates)} steps")
    return found
