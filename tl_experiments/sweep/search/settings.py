"""What a search looks for and how: plain values, kept in the plan of its sweep."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

DIGITS = 4  # of a value drawn from an interval, so that people can read and type it; far below what seeds differ by

Drawn = str | int | float


@dataclass(frozen=True)
class Parameter:
    """A key that is searched: a list of values, or the numbers from `low` to `high`, both included.

    Attributes:
        key: as typed, with a `+` where it adds one.
        choices: the values as Hydra takes them; empty for numbers.
        low, high: of numbers.
        step: between two of them; None where they are continuous.
        log: whether they are drawn evenly by their logarithm.
        whole: whether they are integers.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False

    def text(self, drawn: Drawn) -> str:
        """Return a drawn value as Hydra takes it, a continuous one rounded, and still inside.

        >>> Parameter("lr", low=1e-5, high=1e-1, log=True).text(0.00123456789)
        '0.001235'
        >>> Parameter("strategy.backbone_lr_scale", low=0.0, high=0.5).text(0.123456789)
        '0.1235'
        """
        if self.choices:
            return str(drawn)
        number = float(drawn)
        if self.whole:
            return str(round(number))
        if self.step is not None:
            return repr(float(f"{number:.12g}"))  # 0.1 + 2 * 0.1 has a long tail
        size = abs(number) if self.log else self.high - self.low
        size *= min(self.high / self.low - 1, 1.0) if self.log else 1.0  # a narrow interval keeps more digits
        rounded = round(number, DIGITS - math.ceil(math.log10(size))) if size else number
        return repr(min(max(rounded, self.low), self.high))

    def drawn(self, text: str) -> Drawn:
        """Return what was drawn, from its text."""
        if self.choices:
            return text
        return int(text) if self.whole else float(text)

    @property
    def ends(self) -> tuple[str, ...]:
        """The values that show whether all others can be used: every choice, the ends of an interval."""
        return self.choices or (self.text(self.low), self.text(self.high))

    def __str__(self) -> str:
        """Describe it in one line.

        >>> str(Parameter("lr", low=1e-5, high=0.1, log=True)), str(Parameter("strategy", choices=("feature", "lp_ft")))
        ('1e-05 to 0.1, logarithmic', 'feature, lp_ft')
        """
        if self.choices:
            return ", ".join(self.choices)
        steps = f", in steps of {self.step:g}" if self.step not in (None, 1) else ", whole" if self.whole else ""
        return f"{self.low:g} to {self.high:g}{steps}{', logarithmic' if self.log else ''}"


@dataclass(frozen=True)
class Search:
    """How the jobs of a sweep are found.

    Attributes:
        num_trials: jobs at most; fewer where the space has no more configurations.
        sampler: tpe or random.
        n_startup_trials: jobs that are drawn at random before TPE learns from them.
        pruner: none, median or hyperband.
        min_trials: jobs that have finished before the median stops any.
        min_epochs: epochs that every job may train.
        seed: of the search; jobs have their own.
        max_epochs: most epochs of any job's last schedule, for Hyperband.
        space: what is searched, in typed order.
        starts: index of the first job of each batch; the jobs of a batch were asked for together.
    """

    num_trials: int
    sampler: str
    n_startup_trials: int
    pruner: str
    min_trials: int
    min_epochs: int
    seed: int
    max_epochs: int = 1
    space: tuple[Parameter, ...] = ()
    starts: tuple[int, ...] = field(default=())

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` and JSON made of a search; raises TypeError or KeyError where it is none."""
        space = tuple(
            Parameter(**{**parameter, "choices": tuple(parameter["choices"])}) for parameter in fields["space"]
        )
        return cls(**{**fields, "space": space, "starts": tuple(fields["starts"])})

    def before(self, index: int) -> int:
        """Return how many jobs had ended when this one was asked for: those of earlier batches."""
        return max((start for start in self.starts if start <= index), default=0)

    @property
    def choices(self) -> dict[str, Sequence[str]]:
        """The searched keys, with their values where these are a list."""
        return {parameter.key: parameter.choices for parameter in self.space}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield title and text of what people want to know of it before it starts."""
        startup = f", {min(self.n_startup_trials, self.num_trials)} random first" if self.sampler == "tpe" else ""
        yield (
            "search",
            f"{self.num_trials} jobs: sampler {self.sampler}{startup}, pruner {self.pruner}, seed {self.seed}",
        )
        yield from (("space", f"{parameter.key}: {parameter}") for parameter in self.space)
