"""A share of work that several workers divide, each knowing its number alone. Nothing heavy is imported."""

from dataclasses import dataclass

BLOCK = 1024  # positions at most that are dealt at once: as many rows as a shard of a cache has


@dataclass(frozen=True)
class Share:
    """One of several shares of a sequence; all together they are the whole, and no position is in two.

    Attributes:
        index: from 0.
        count: how many shares there are.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"share {self.index} of {self.count}: expected an index from 0 to {self.count - 1}")

    def __str__(self) -> str:
        return f"part {self.index + 1} of {self.count}" if self.count > 1 else "all"

    def positions(self, length: int) -> list[int]:
        """Return the positions of this share of a sequence, ascending.

        They are dealt in blocks, since neighbours lie together on the disk; there are several rounds, since what is
        known already often lies together too, and would be one worker's luck. All blocks but the last have one size.

        >>> [Share(index, 2).positions(5) for index in range(2)]
        [[0, 1, 2], [3, 4]]
        """
        rounds = max(1, -(-length // (self.count * BLOCK)))
        block = max(1, -(-length // (self.count * rounds)))
        starts = range(self.index * block, length, self.count * block)
        return [position for start in starts for position in range(start, min(start + block, length))]


WHOLE = Share(0, 1)
