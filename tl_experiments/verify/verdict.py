"""Two runs of one record compared: pure, from what each came to and the circumstances in which it did.

IDENTICAL: the digest of the weights, every metric of every epoch and of the test, and predictions.csv byte for byte are
equal; only `perf/*`, the time that a run took, is not compared. This is what the same machine, code and libraries
promise.

WITHIN TOLERANCE: configuration, data and weights to begin with are the same, so that order and augmentation are; the
learning rates and losses of the first epoch agree within 1e-3, relative, best val/acc and test/acc within 0.5 points.
This is what rounding may do: other threads or processes, another processor, device, precision or version. Later losses
are not compared, since training magnifies what rounding began.

DIFFERENT: anything else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

LOSS_TOLERANCE = 1e-3
ACC_TOLERANCE = 0.005
FIRST_EPOCH = ("lr", "train/loss", "val/loss")
AT_THE_END = ("val/acc_best", "test/acc")

CODE, CONFIGURATION, DATA, WEIGHTS = "code", "configuration", "data", "weights to begin with"
SAME_RUN = (CONFIGURATION, DATA, WEIGHTS)  # where one of them differs, no rounding explains what came out
NO_COMMIT, UNCOMMITTED = "no commit", "-dirty"


class Word(StrEnum):
    IDENTICAL = "IDENTICAL"
    CLOSE = "WITHIN TOLERANCE"
    DIFFERENT = "DIFFERENT"


@dataclass(frozen=True)
class Ending:
    """What a run came to.

    Attributes:
        weights_sha256: of the model at the best epoch.
        epochs: metrics of each epoch, `perf/*` left out.
        summary: metrics of the best epoch and of the test.
        predictions: lines of predictions.csv, byte for byte.
    """

    weights_sha256: str
    epochs: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    predictions: Sequence[bytes]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was."""

    what: str
    then: str
    now: str


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to.

    Attributes:
        word: the verdict.
        results: what came out otherwise.
        circumstances: what was otherwise, so that a reader sees why.
        same: names of the circumstances that were the same.
        beyond: one line for each reason why it is not within tolerance.
    """

    word: Word
    results: tuple[Difference, ...]
    circumstances: tuple[Difference, ...]
    same: tuple[str, ...]
    beyond: tuple[str, ...]

    @property
    def line(self) -> str:
        """The verdict as one line: the word, what came out, and what was otherwise."""
        came = "same bits in weights, metrics and predictions"
        if self.word is Word.CLOSE:
            came = f"no more than rounding in {_names(self.results)}"
        elif self.word is Word.DIFFERENT:
            came = "; ".join(self.beyond)
        otherwise = _names(self.circumstances) or "nothing that is on record"
        if CODE not in (*self.same, *(difference.what for difference in self.circumstances)):
            otherwise += "; of the code no record says whether it does"
        return f"{self.word}: {came}; what differs between then and now: {otherwise}"


def compare(
    then: Ending, now: Ending, *, circumstances_then: Mapping[str, str], circumstances_now: Mapping[str, str]
) -> Verdict:
    """Return the verdict on a run that was done again.

    Args:
        then, now: what it came to the first time and this time.
        circumstances_then, circumstances_now: by names, `SAME_RUN` and `CODE` among them; a name that only one of them
            has is on no record, and says nothing.
    """
    results = tuple(_results(then, now))
    circumstances = tuple(_circumstances(circumstances_then, circumstances_now))
    same = tuple(
        what
        for what, value in circumstances_then.items()
        if circumstances_now.get(what) == value and not (what == CODE and value.endswith((NO_COMMIT, UNCOMMITTED)))
    )
    beyond = tuple(_beyond(then, now, circumstances)) if results else ()
    word = Word.DIFFERENT if beyond else Word.CLOSE if results else Word.IDENTICAL
    return Verdict(word=word, results=results, circumstances=circumstances, same=same, beyond=beyond)


def _results(then: Ending, now: Ending) -> Iterator[Difference]:
    """Yield what came out otherwise; of each metric the first epoch that shows it."""
    if then.weights_sha256 != now.weights_sha256:
        yield Difference("weights", short(then.weights_sha256), short(now.weights_sha256))
    if len(then.epochs) != len(now.epochs):
        yield Difference("epochs", str(len(then.epochs)), str(len(now.epochs)))
    told = set()
    for number, (before, after) in enumerate(zip(then.epochs, now.epochs, strict=False), start=1):
        for key in dict.fromkeys([*before, *after]):
            if key not in told and before.get(key) != after.get(key):
                told.add(key)
                yield Difference(f"{key} (epoch {number})", _value(before.get(key)), _value(after.get(key)))
    for key in dict.fromkeys([*then.summary, *now.summary]):
        if then.summary.get(key) != now.summary.get(key):
            yield Difference(key, _value(then.summary.get(key)), _value(now.summary.get(key)))
    if then.predictions != now.predictions:
        others = sum(before != after for before, after in zip(then.predictions, now.predictions, strict=False))
        others += abs(len(then.predictions) - len(now.predictions))
        yield Difference("predictions", f"{len(then.predictions)} lines", f"{others} of them differ")


def _circumstances(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    """Yield what was otherwise, as far as both tell of it."""
    for what, before in then.items():
        if (after := now.get(what, before)) != before:
            yield Difference(what, before, after)


def _beyond(then: Ending, now: Ending, circumstances: Sequence[Difference]) -> Iterator[str]:
    """Yield why what came out is beyond the tolerance."""
    if others := [difference.what for difference in circumstances if difference.what in SAME_RUN]:
        yield f"not the same run: {' and '.join(others)} differ"
    if len(then.epochs) != len(now.epochs) or not then.epochs:
        yield f"{len(then.epochs)} epochs then, {len(now.epochs)} now"
        return
    for key in FIRST_EPOCH:
        before, after = then.epochs[0].get(key), now.epochs[0].get(key)
        if not _near(before, after, relative=LOSS_TOLERANCE):
            yield f"{key} of epoch 1 {_value(before)} then, {_value(after)} now"
    for key in AT_THE_END:
        before, after = then.summary.get(key), now.summary.get(key)
        if not _near(before, after, absolute=ACC_TOLERANCE):
            yield f"{key} {_value(before)} then, {_value(after)} now"


def _near(before: Any, after: Any, *, absolute: float = 0.0, relative: float = 0.0) -> bool:
    if not (isinstance(before, int | float) and isinstance(after, int | float)):
        return before == after  # null stands for what was not finite
    within = max(absolute, relative * abs(before))
    return round(abs(before - after), 12) <= within  # one image of 200 is 0.005 but for the last bit


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def short(digest: str) -> str:
    """Return as much of a digest as people compare."""
    return digest[:12]


def _names(differences: Sequence[Difference]) -> str:
    return ", ".join(difference.what for difference in differences)
