"""What the first of several processes leaves for the others, and for itself where torchrun begins again."""

from collections.abc import Sequence

from tl_experiments.config.member import Member, as_plain
from tl_experiments.runtime.torchrun import current_launch


def share_out(members: Sequence[Member]) -> None:
    """Keep the run's folder for another attempt, and give the other processes what they are to train, if there are."""
    launch = current_launch()
    if launch is not None:
        launch.remember(members[0].folder)
        launch.give_task(as_plain(members))
