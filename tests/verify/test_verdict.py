"""The verdict on two runs, from what they came to: bits, rounding, or more than that, and why."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tl_experiments.verify.verdict import Difference, Ending, Verdict, Word, compare

EPOCHS = (
    {"epoch": 1, "train/loss": 2.0, "val/loss": 1.0, "val/acc": 0.5, "lr": 1e-3},
    {"epoch": 2, "train/loss": 1.0, "val/loss": 0.5, "val/acc": 0.75, "lr": 1e-4},
)
THEN = Ending(
    weights_sha256="a" * 64,
    epochs=EPOCHS,
    summary={"val/acc_best": 0.75, "val/epoch_best": 2, "test/loss": 0.5, "test/acc": 0.7},
    predictions=(b"image,class\r\n", b"0.png,cat\r\n", b"1.png,dog\r\n"),
)
VAL_LOSS = "val/loss (epoch 1)"
WHERE = {
    "code": "abc",
    "configuration": "x",
    "data": "d",
    "weights to begin with": "w",
    "threads": "2",
    "torch": "2.13",
}


def verdict(now: Ending, **otherwise: str) -> Verdict:
    circumstances = WHERE | {what.replace("_", " "): value for what, value in otherwise.items()}
    return compare(THEN, now, circumstances_then=WHERE, circumstances_now=circumstances)


def with_epoch(number: int, values: Mapping[str, Any]) -> Ending:
    epochs = [dict(epoch) for epoch in EPOCHS]
    epochs[number - 1] |= values
    return replace(THEN, epochs=epochs, weights_sha256="b" * 64)


def with_summary(**values: float) -> Ending:
    return replace(THEN, summary={**THEN.summary, **{key.replace("_", "/", 1): value for key, value in values.items()}})


def test_equal_in_every_bit_is_identical_whatever_the_circumstances() -> None:
    same = verdict(replace(THEN))
    assert (same.word, same.results, same.circumstances, same.beyond) == (Word.IDENTICAL, (), (), ())
    assert same.same == tuple(WHERE)
    assert same.line.endswith("what differs between then and now: nothing that is on record")
    elsewhere = verdict(replace(THEN), threads="1", torch="2.14", code="def")
    assert elsewhere.word is Word.IDENTICAL
    assert elsewhere.circumstances == (
        Difference("code", "abc", "def"), Difference("threads", "2", "1"), Difference("torch", "2.13", "2.14"),
    )  # fmt: skip
    assert elsewhere.line.endswith("what differs between then and now: code, threads, torch")


@pytest.mark.parametrize(
    ("now", "differs"),
    [
        (replace(THEN, weights_sha256="b" * 64), ["weights"]),
        (replace(THEN, predictions=(*THEN.predictions[:2], b"1.png,cat\r\n")), ["predictions"]),
        (replace(THEN, predictions=THEN.predictions[:2]), ["predictions"]),
        (with_epoch(1, {"train/loss": 2.0 + 1e-15}), ["weights", "train/loss (epoch 1)"]),
        (with_epoch(2, {"lr": 1.1e-4}), ["weights", "lr (epoch 2)"]),
        (with_epoch(2, {"val/acc": 0.1, "more": 1}), ["weights", "val/acc (epoch 2)", "more (epoch 2)"]),
        (with_summary(test_loss=0.6), ["test/loss"]),
        (with_summary(test_acc=0.705, val_acc_best=0.745), ["val/acc_best", "test/acc"]),
        (with_epoch(1, {"train/loss": 2.0019, "val/loss": 0.9991}), ["weights", "train/loss (epoch 1)", VAL_LOSS]),
    ],
)
def test_what_rounding_may_do_is_within_tolerance_and_named(now: Ending, differs: list[str]) -> None:
    found = verdict(now, threads="1")
    assert found.word is Word.CLOSE
    assert [difference.what for difference in found.results] == differs
    assert found.line == (
        f"WITHIN TOLERANCE: no more than rounding in {', '.join(differs)}; what differs between then and now: threads"
    )


@pytest.mark.parametrize(
    ("now", "beyond"),
    [
        (with_epoch(1, {"train/loss": 2.0021}), "train/loss of epoch 1 2.0 then, 2.0021 now"),
        (with_epoch(1, {"val/loss": 0.998}), "val/loss of epoch 1 1.0 then, 0.998 now"),
        (with_epoch(1, {"val/loss": None}), "val/loss of epoch 1 1.0 then, none now"),
        (with_epoch(1, {"lr": 2e-3}), "lr of epoch 1 0.001 then, 0.002 now"),
        (with_summary(test_acc=0.706), "test/acc 0.7 then, 0.706 now"),
        (with_summary(val_acc_best=0.744), "val/acc_best 0.75 then, 0.744 now"),
        (replace(THEN, epochs=EPOCHS[:1]), "2 epochs then, 1 now"),
    ],
)
def test_more_than_rounding_is_different_and_says_why(now: Ending, beyond: str) -> None:
    found = verdict(now)
    assert (found.word, found.beyond) == (Word.DIFFERENT, (beyond,))
    assert found.line == f"DIFFERENT: {beyond}; what differs between then and now: nothing that is on record"


@pytest.mark.parametrize("what", ["configuration", "data", "weights_to_begin_with"])
def test_no_rounding_explains_what_another_run_came_to(what: str) -> None:
    found = verdict(with_epoch(1, {"train/loss": 2.0 + 1e-15}), **{what: "other"})
    assert found.word is Word.DIFFERENT
    assert found.beyond == (f"not the same run: {what.replace('_', ' ')} differ",)


@pytest.mark.parametrize("code", ["abc-dirty", "no commit"])
def test_code_that_no_record_tells_apart_is_not_called_the_same(code: str) -> None:
    where = WHERE | {"code": code}
    found = compare(THEN, THEN, circumstances_then=where, circumstances_now=where)
    assert "code" not in found.same
    assert found.line.endswith("nothing that is on record; of the code no record says whether it does")
    moved = compare(THEN, THEN, circumstances_then=where, circumstances_now=WHERE)
    assert moved.circumstances == (Difference("code", code, "abc"),)
    assert "no record says" not in moved.line


def test_the_first_epoch_that_shows_a_difference_is_the_one_that_is_told() -> None:
    now = replace(THEN, epochs=[{**epoch, "val/acc": epoch["val/acc"] + 0.001} for epoch in EPOCHS])
    [difference] = verdict(now).results
    assert difference == Difference("val/acc (epoch 1)", "0.5", "0.501")
