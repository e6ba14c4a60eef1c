"""`tlx evaluate`: a model on other labelled images, whose classes are found by name."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.digit_files import MODEL, RUN, write_digits
from tl_experiments.cli.verbs import main
from tl_experiments.tracking.evaluation_files import write_evaluation

NUM = 60
FILES = (
    *("confusion_matrix.png", "evaluation.json", "manifest.json", "per_class.csv", "predictions.csv"),
    *("reliability.png", "wrong_gallery.png"),
)
Evaluate = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Commands are typed where `in` holds the images; returns path below it → class."""
    monkeypatch.chdir(tmp_path)
    return write_digits(tmp_path / "in", NUM)


@pytest.fixture
def evaluated() -> Evaluate:
    """Type `tlx evaluate ...`; returns the exit code and evaluation.json of the folder `out`, which is removed."""

    def type_it(*arguments: str, run: Path = MODEL) -> tuple[int, dict[str, Any]]:
        code = main(["evaluate", str(run), *arguments, "--output", "out", "--workers", "0"])
        said = json.loads((Path("out") / "evaluation.json").read_text())
        shutil.rmtree("out")
        return code, said

    return type_it


def test_a_folder_is_scored_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(RUN), "in", "--output", "out", "--workers", "1"]) == 0
    assert tuple(sorted(path.name for path in Path("out").iterdir())) == FILES
    said = json.loads(Path("out/evaluation.json").read_text())
    assert (said["num_images"], said["num_bad"], said["num_unknown"], said["split"]) == (NUM, 0, 0, "all")
    assert (said["unknown_classes"], said["absent_classes"]) == ({}, [])
    with Path("out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert said["acc"] == sum(row["class"] == row["predicted"] for row in rows) / NUM >= 0.98
    assert said["acc_top5"] == 1
    assert 0 < said["loss_calibrated"] < said["loss"] < 0.2
    assert said["own_test"]["acc"] == json.loads((RUN / "result.json").read_text())["test/acc"]
    out = capsys.readouterr().out
    assert "the run's own test" in out
    assert f"{said['acc']:.4f}" in out
    assert out.splitlines()[-1] == f"{NUM} images, 0 bad: {Path('out').absolute()}"


def test_classes_are_matched_by_name_and_others_are_told_of(
    evaluated: Evaluate, images: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, before = evaluated("in")
    Path("in/5").rename("in/five")
    shutil.rmtree("in/7")
    code, said = evaluated("in")
    counts = {label: list(images.values()).count(label) for label in "57"}
    assert code == 0
    assert said["unknown_classes"] == {"five": counts["5"]}
    assert said["absent_classes"] == ["5", "7"]
    assert said["num_images"] == NUM - counts["5"] - counts["7"]
    assert said["num_unknown"] == counts["5"]
    assert said["acc"] >= before["acc"] - 0.02, "no label moves because a class is missing"
    out = capsys.readouterr().out
    assert f"left out, as the model does not know these classes: five ({counts['5']} images)" in out
    assert "warning: there is no image of these classes of the model: 5, 7" in out


def test_of_images_that_are_split_test_is_taken_unless_another_is_asked_for(
    evaluated: Evaluate, images: dict[str, str]
) -> None:
    for split, part in (("train", range(40)), ("test", range(40, NUM))):
        for path in (path for at, path in enumerate(images) if at in part):
            (Path("split") / split / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path("in") / path, Path("split") / split / path)
    assert [evaluated("split", *arguments)[1]["num_images"] for arguments in ((), ("--split", "train"))] == [20, 40]
    shutil.rmtree("split/train")
    assert evaluated("split")[1]["split"] == "test"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_says_the_same_as_the_folder(suffix: str, evaluated: Evaluate, images: dict[str, str]) -> None:
    table = Path(f"in/table.{suffix}")
    ordered = dict(sorted(images.items()))
    if suffix == "csv":
        lines = [f"{path},{label},{'val' if at % 2 else 'test'}" for at, (path, label) in enumerate(ordered.items())]
        table.write_text("\n".join(["image_path,label,split", *lines]))
    else:
        pq.write_table(pa.table({"image_path": list(ordered), "label": list(ordered.values())}), table)
    _, said = evaluated(str(table))
    if suffix == "parquet":
        folder = evaluated("in")[1]
        assert said.pop("source") != folder.pop("source")
        assert said == folder
    else:
        assert (said["num_images"], said["split"]) == (NUM / 2, "test")


def test_bad_images_are_named_listed_and_left_out(
    evaluated: Evaluate, images: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = next(iter(images))
    (Path("in") / first).write_bytes(b"no image")
    code, said = evaluated("in")
    assert (code, said["num_images"], said["num_bad"]) == (1, NUM - 1, 1)
    assert f"bad image: {first}: cannot be read as an image" in capsys.readouterr().out
    assert main(["evaluate", str(MODEL), "in", "--skip-bad", "--output", "kept", "--workers", "0"]) == 0
    assert first in Path("kept/skipped_images.csv").read_text()
    assert first not in Path("kept/predictions.csv").read_text()


def test_without_a_place_it_lies_in_outputs() -> None:
    assert main(["evaluate", str(MODEL), "in", "--workers", "0"]) == 0
    [folder] = Path("outputs/evaluations").iterdir()
    assert (folder / "evaluation.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gone",), "gone: no such folder or table"),
        (("x" * 300,), "cannot be used as a path (File name too long)"),
        (("~nobody-of-this-name/in",), "cannot be used as a path (Could not determine home directory.)"),
        (("in", "--output", "~nobody-of-this-name/out"), "cannot be used as a path"),
        (("in", "--split", "dev"), "--split dev: expected train, val or test"),
        (("in", "--split", "val"), "in: no split val"),
        (("table.csv", "--split", "val"), "table.csv: no split val (it is not split)"),
        (("other",), "other: has classes cat, dog, the model 0, 1, 2, ...; expected some of the same name"),
        (("in", "--output", "in"), "is there already; expected a new folder, or an empty one"),
    ],
)
def test_wrong_input_is_told_in_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cat", "dog"):
        shutil.copytree("in/0", f"other/{name}")
    Path("table.csv").write_text("image_path,label\nin/0/0.png,0\n")
    before = sorted(Path().rglob("*"))
    assert main(["evaluate", str(MODEL), *arguments, "--workers", "0"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert sorted(Path().rglob("*")) == before


def test_an_output_that_cannot_be_written_is_told_before_anything_is_classified(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("file").touch()
    assert main(["evaluate", str(MODEL), "in", "--output", "file/out", "--workers", "0"]) == 1
    said = capsys.readouterr()
    assert "file/out: cannot be written (ENOTDIR: Not a directory" in said.err or "EEXIST" in said.err
    assert "evaluating" not in said.out + said.err


def test_what_comes_to_the_output_meanwhile_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*arguments: Any, **options: Any) -> None:
        Path("out").mkdir()
        Path("out/mine.txt").write_text("notes")
        write_evaluation(*arguments, **options)

    monkeypatch.setattr("tl_experiments.use.evaluate.write_evaluation", write)
    assert main(["evaluate", str(MODEL), "in", "--output", "out", "--workers", "0"]) == 2
    assert "is there already; expected a new folder" in capsys.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == ["mine.txt"]


def test_where_no_image_can_be_used_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad/0").mkdir(parents=True)
    Path("bad/0/0.png").write_bytes(b"no image")
    assert main(["evaluate", str(MODEL), "bad", "--output", "out", "--workers", "0"]) == 1
    assert "none of the 1 images can be used, such as 0/0.png: cannot be read" in capsys.readouterr().err
    assert not Path("out").exists()
