"""Heads that stop early beside others: no failure, no later epochs, and the bits that each has alone."""

import json
from collections.abc import Callable

import pytest

from tests.sweep.conftest import Desk

EPOCHS = 5
OPTIONS = ("seed=0", f"epochs={EPOCHS}", "early_stopping.patience=1", "ema_decay=0.5", "clip_grad_norm=1.0")
RATES = ("1e-3", "1e-1")  # the second is soon as good as it gets

pytestmark = pytest.mark.slow


def test_a_head_that_stops_early_is_what_it_is_alone(make_desk: Callable[[str], Desk]) -> None:
    together, alone = make_desk("together"), make_desk("alone")
    ended = together.sweep(*OPTIONS, f"lr={','.join(RATES)}", "checkpoint.keep_when_finished=false")
    assert ended.code == 0, ended.err
    assert alone.sweep(*OPTIONS, f"lr={','.join(RATES)}", "sweep.max_heads=1", "tracking=none").code == 0
    assert "2 heads side by side" in ended.out
    epochs = []
    for job, (ours, theirs) in enumerate(zip(together.results().values(), alone.results().values(), strict=True)):
        assert ours["status"] == "FINISHED"
        for key in ("weights_sha256", "stopped_early", "val/epoch_best", "val/acc_best", "test/loss"):
            assert ours.get(key) == theirs.get(key), key
        rows = [(desk.sweep_folder / str(job) / "metrics.jsonl").read_text() for desk in (together, alone)]
        told = [[json.loads(line) for line in text.splitlines()] for text in rows]
        last = ours.get("stopped_early", EPOCHS)
        assert [[row["epoch"] for row in own] for own in told] == [[*range(1, last + 1)]] * 2
        together_losses, alone_losses = ([row["val/loss"] for row in own] for own in told)
        assert together_losses == alone_losses
        [run] = [run for run in together.runs("run") if run.data.tags["tl.uid"] == ours["uid"]]
        assert run.data.tags.get("tl.stopped_early") == (str(last) if "stopped_early" in ours else None)
        history = together.client.get_metric_history(run.info.run_id, "val/acc")
        assert max(point.step for point in history) == last
        assert run.data.params["ema_decay"] == "0.5"
        epochs.append(last)
    assert len({*epochs}) == 2, "the test needs a head that stops before the other"
