"""Every road from a run to an answer gives the same answer."""

from pathlib import Path

import pytest

from tests.commands import SMALL
from tests.digit_files import write_digits
from tests.use.roads import Roads, compare
from tl_experiments.config.compose import compose_member
from tl_experiments.experiment import run_experiments

NUM_IMAGES = 200
RUN = (
    *SMALL, "backbone.image_size=32",
    "strategy=finetune", "lr=3e-3", "epochs=2", "tta=flip", "runtime.threads=1",
)  # fmt: skip


@pytest.mark.slow
def test_all_roads_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    write_digits(tmp_path / "digits", NUM_IMAGES)
    folder = tmp_path / "run"
    folder.mkdir()
    member = compose_member(["dataset=image_folder", f"dataset.root={tmp_path / 'digits'}", *RUN], folder=folder)
    run_experiments([member])
    roads = Roads(str(folder), "digits", tmp_path)
    with (folder / "predictions.csv").open() as file:
        assert len(roads.own_test()[1]) == len(file.readlines()) - 1, "the images hold the whole of its test split"
    said = compare(roads)
    assert len(said) == 7
    assert {name: found for name, found in said.items() if found.labels < 1} == {}
    assert {name: found for name, found in said.items() if not found.own_test >= 0.99} == {}
    assert {name: found for name, found in said.items() if found.difference > 1e-4} == {}
