"""`tlx compare`: what tells runs apart, proved on the same images alone."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import SMALL
from tests.finished_runs import change_json, copy_run, read_answers, write_answers
from tl_experiments.cli.verbs import main
from tl_experiments.config.member import Member
from tl_experiments.experiment import run_experiments
from tl_experiments.sweep.side_by_side.gather import SideBySide, compare_runs

SAME = {"test_fingerprint": "t"}
ALL = 359  # test images


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., SideBySide]:
    return lambda *names: compare_runs([tmp_path / name for name in names])


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["compare", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def figures(text: str, key: str) -> list[str]:
    """The cells of a row."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"│ {key} "))
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_settings_that_change_a_result_are_told_and_no_others(
    tmp_path: Path, compare: Callable[..., SideBySide]
) -> None:
    copy_run(tmp_path / "a", uid="a")
    copy_run(
        tmp_path / "b",
        uid="b",
        record={"choices": {**json.loads((tmp_path / "a" / "run.json").read_text())["choices"], "optimizer": "sgd"}},
        config={
            "lr": 0.1, "optimizer.lr": 0.1, "optimizer._target_": "torch.optim.SGD", "early_stopping.patience": 3,
            "augmentation.scale": [0.5, 1.0], "runtime.workers": 7, "tracking.experiment_name": "other",
            "dataset.download": True,
        },
    )  # fmt: skip
    assert compare("a", "b").settings == {
        "optimizer": ("adamw", "sgd"),
        "lr": ("0.003", "0.1"),
        "early_stopping.patience": ("null", "3"),
        "augmentation.scale": ("1.0, 1.0", "0.5, 1.0"),
    }


def test_a_rate_of_the_optimizers_own_and_keys_that_one_has_alone_are_told(
    tmp_path: Path, compare: Callable[..., SideBySide]
) -> None:
    copy_run(tmp_path / "a", uid="a")
    copy_run(tmp_path / "b", uid="b", config={"optimizer.lr": 0.1, "head.hidden": 5, "head._target_": "mine.Head"})
    assert compare("a", "b").settings == {
        "head._target_": ("tl_experiments.models.head_kinds.Linear", "mine.Head"),
        "optimizer.lr": ("0.003", "0.1"),
        "head.hidden": ("–", "5"),
    }


@pytest.mark.parametrize(
    ("fingerprint", "root", "settings", "note"),
    [
        ("d", "/moved", {}, None),
        ("other", "/other", {"dataset.root": ("/data", "/other")}, "different datasets"),
        (None, "/other", {"dataset.root": ("/data", "/other")}, "different datasets"),
        ("other", "/data", {}, "the data changed meanwhile"),
    ],
)
def test_where_the_images_lie_is_told_unless_they_are_the_same(
    fingerprint: str | None,
    root: str,
    settings: dict[str, tuple[str, str]],
    note: str | None,
    tmp_path: Path,
    compare: Callable[..., SideBySide],
) -> None:
    copy_run(tmp_path / "a", uid="a", result={"dataset_fingerprint": "d"}, config={"dataset.root": "/data"})
    copy_run(tmp_path / "b", uid="b", result={"dataset_fingerprint": fingerprint}, config={"dataset.root": root})
    compared = compare("a", "b")
    assert compared.settings == settings
    assert [note is not None and note in line for line in compared.notes] == ([True] if note else [])


def test_a_run_whose_settings_cannot_be_read_makes_none_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], compare: Callable[..., SideBySide]
) -> None:
    folders = [copy_run(tmp_path / name, uid=name) for name in "abc"]
    (folders[1] / "config.yaml").write_text("[")
    (folders[1] / "result.json").unlink()
    text = said(capsys, *folders)
    assert "No setting differs of those that can be read." in text
    assert re.search(r"note: run 2: its settings cannot be compared: .*; it is UNFINISHED", text)
    copy_run(tmp_path / "d", uid="d", config={"lr": 0.5, "optimizer.lr": 0.5})
    assert compare("a", "b", "d").settings == {"lr": ("0.003", "?", "0.5")}


def test_runs_of_the_same_test_images_are_told_apart_by_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], compare: Callable[..., SideBySide]
) -> None:
    copy_run(tmp_path / "a", uid="a", wrong=range(2), result=SAME)
    copy_run(tmp_path / "b", uid="b", wrong=range(1, 31), result=SAME | {"dataset_fingerprint": "fewer for training"})
    compared = compare("a", "b")
    (against,) = compared.against
    assert against.paired is not None
    assert (against.paired.only_first, against.paired.only_second) == (29, 1)
    assert against.paired.difference == pytest.approx(-28 / ALL)
    text = said(capsys, tmp_path / "a", tmp_path / "b")
    (sentence,) = (line for line in text.splitlines() if line.startswith("2 against 1: "))
    assert "can be told apart at the 5% level: test/acc -0.0780" in sentence
    assert "the same 359 test images; 29 only 1 gets right, 1 only 2; McNemar's exact test p = 5.8e-08." in sentence
    assert "Holm" not in sentence
    assert "not of other seeds" in text
    assert figures(text, "test/acc") == ["0.9944", "0.9164"]


def test_several_are_each_compared_with_the_first_and_corrected_for_their_number(
    tmp_path: Path, compare: Callable[..., SideBySide]
) -> None:
    for name, wrong in (("a", range(1)), ("b", range(1, 7)), ("c", range(7, 9))):
        copy_run(tmp_path / name, uid=name, wrong=wrong, result=SAME)
    compared = compare("a", "b", "c")
    first, second = compared.against
    assert first.paired is not None
    assert second.paired is not None
    assert first.corrected == pytest.approx(2 * first.paired.p_value)
    assert second.corrected == pytest.approx(second.paired.p_value) == 1.0
    assert "after Holm's correction for 2 tests" in next(compared.verdicts())
    assert len(compared.disagreements) == 9


def test_disagreements_are_told_with_answers_and_confidence_the_surest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = copy_run(tmp_path / "a", uid="a", wrong=(3, 200), result=SAME)
    b = copy_run(tmp_path / "b", uid="b", wrong=(100, 200), result=SAME)
    rows = read_answers(a)
    text = said(capsys, a, b, "--limit", "1", "--output", tmp_path / "out")
    assert "Of 359 test images that runs 1, 2 share they disagree on 2." in text, "both say the same wrong class of 200"
    row, answer = rows[100], (int(rows[100]["class"]) + 1) % 10
    assert f"│ {row['image']}" in text
    assert f"│ ✓ {row['class']} 60% │ ✗ {answer} 60% │" in text
    assert rows[3]["image"] not in text, "the limit"
    with (tmp_path / "out" / "disagreements.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "image": row["image"], "class": row["class"], "predicted_1": row["class"], "confidence_1": "0.6000",
        "predicted_2": str(answer), "confidence_2": "0.6000",
    }  # fmt: skip
    assert second["image"] == rows[3]["image"]


def test_the_page_stands_alone_with_the_images_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = copy_run(tmp_path / "a", uid="a", wrong=(3,), record={"name": "<script>alert(1)</script>"}, result=SAME)
    b = copy_run(tmp_path / "b", uid="b", wrong=(100,), config={"lr": 0.5}, result=SAME)
    text = said(capsys, a, b, "--output", tmp_path / "new" / "out")
    assert f"written {tmp_path}/new/out/compare.html" in text.splitlines()
    page = (tmp_path / "new" / "out" / "compare.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/png;base64,') == 2
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert '<td class="">0.003</td><td class="">0.5</td>' in page
    assert not re.search(r"(src|href)=\"(http|//)", page)
    assert 'href="../../a/"' in page


def test_a_page_without_its_images_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = {"dataset._target_": "os.system", "dataset.command": f"touch {tmp_path}/ran"}
    a = copy_run(tmp_path / "a", uid="a", wrong=(3,), result=SAME, config=elsewhere)
    b = copy_run(tmp_path / "b", uid="b", wrong=(100,), result=SAME, config=elsewhere)
    said(capsys, a, b, "--output", tmp_path / "out")
    page = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "The pictures cannot be shown: dataset._target_=os.system: not an allowed target" in page
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("num_more", [0, 1])  # row 17 of another revision is another image, however many there are
def test_names_that_are_the_same_pair_nothing_where_the_contents_are_others(
    num_more: int, tmp_path: Path, compare: Callable[..., SideBySide]
) -> None:
    copy_run(tmp_path / "a", uid="a", result=SAME)
    b = copy_run(tmp_path / "b", uid="b", wrong=range(30), result={"test_fingerprint": "other"})
    rows = read_answers(b)
    write_answers(b, rows + [rows[0] | {"image": f"digits/{10_000 + index}"} for index in range(num_more)])
    compared = compare("a", "b")
    assert compared.against[0].paired is None
    assert list(compared.verdicts()) == [
        "2 against 1: not compared image by image: the test images have other contents, and names alone do not tell "
        "which of them are the same."
    ]
    assert compared.disagreements == ()


@pytest.mark.parametrize(
    ("result", "config", "count"),
    [
        ({}, {}, ALL),
        ({"dataset_fingerprint": "other"}, {"dataset.train_size": 50}, ALL),
        ({"dataset_fingerprint": "other"}, {"dataset._target_": "tl_experiments.data.folder.image_folder"}, 0),
        ({"dataset_fingerprint": "other"}, {"dataset.root": "/elsewhere"}, 0),
    ],
)
def test_results_of_an_earlier_version_are_paired_by_name_if_they_took_images_from_one_place(
    result: dict[str, str], config: dict[str, str], count: int, tmp_path: Path, compare: Callable[..., SideBySide]
) -> None:
    copy_run(tmp_path / "a", uid="a")
    copy_run(tmp_path / "b", uid="b", result=result, config=config)
    compared = compare("a", "b")
    assert compared.num_common == count
    assert ("come from different places" in next(compared.verdicts())) is (count == 0)


def test_of_an_earlier_versions_test_images_of_one_place_the_common_ones_are_compared(
    tmp_path: Path, compare: Callable[..., SideBySide]
) -> None:
    a = copy_run(tmp_path / "a", uid="a", wrong=range(20))
    b = copy_run(tmp_path / "b", uid="b", wrong=range(10, 30))
    c = copy_run(tmp_path / "c", uid="c", wrong=range(1))
    write_answers(b, read_answers(b)[5:40][::-1])
    write_answers(c, read_answers(c)[15:25])
    compared = compare("a", "b", "c")
    paired = compared.against[0].paired
    assert paired is not None
    assert (paired.num_images, paired.only_first, paired.only_second) == (35, 10, 5)
    assert "the 35 of 359 and 35 test images that have the same names and classes" in next(compared.verdicts())
    assert compared.num_common == 10, "images that all three saw"
    names = {row["image"] for row in read_answers(a)[15:25]}
    assert {item.image for item in compared.disagreements} <= names
    assert len(compared.disagreements) == 10, "1 and 2 are wrong on half of them each, and 3 on none"
    write_answers(b, read_answers(a)[300:])
    write_answers(a, read_answers(a)[:300])
    assert "none has the same name and class" in next(compare("a", "b").verdicts())


def test_runs_that_were_not_tested_are_told_in_one_line_each_and_still_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [copy_run(tmp_path / name, uid=name) for name in ("a", "pruned", "going", "spoilt")]
    change_json(folders[1] / "result.json", {"status": "PRUNED", "test/acc": None})
    (folders[2] / "result.json").unlink()
    (folders[3] / "predictions.csv").write_text("image,class\n1,2\n")
    text = said(capsys, *folders)
    assert "note: run 2: it was stopped by its search, so that it was not tested" in text
    assert "note: run 3: it is UNFINISHED, so that it was not tested" in text
    assert "note: run 4: its predictions.csv cannot be read" in text
    assert text.count("not compared image by image") == 3
    assert figures(text, "test/acc") == ["0.9861", "–", "–", "0.9861"]


def test_real_runs_that_learned_from_different_images_were_tested_on_the_same(
    make_member: Callable[..., Member],
) -> None:
    tiny = (*SMALL, "backbone.image_size=32")
    members = [make_member(*tiny, "epochs=1", "runtime=cpu", f"dataset.train_size={size}") for size in (40, 80)]
    for member in members:
        run_experiments([member])
    compared = compare_runs([member.folder for member in members])
    assert compared.settings == {"dataset.train_size": ("40", "80")}
    assert compared.figures["num_train_images"] == (40, 80)
    assert compared.against[0].common.sentence == f"the same {ALL} test images"
    right = [run.predictions.right.sum() for run in compared.runs if run.predictions]
    assert compared.against[0].paired is not None
    assert compared.against[0].paired.difference == pytest.approx((right[1] - right[0]) / ALL)


def test_runs_are_named_in_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "outputs" / "runs"
    copy_run(runs / "a", uid="0123456789", began="2026-01-01", result={"val/acc_best": 0.999})
    copy_run(runs / "b", uid="9876543210", began="2026-01-03")
    copy_run(runs / "c", uid="abcdef0123", began="2026-01-02")
    text = said(capsys, "latest", "best", "abcdef01", "--limit", "0")
    rows = [line.split("│")[-2].strip() for line in text.splitlines() if "FINISHED" in line]
    assert rows == [f"outputs/runs/{name}" for name in "bac"]


def test_what_cannot_be_compared_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = copy_run(tmp_path / "a", uid="a")
    b = shutil.copytree(a, tmp_path / "b")
    (tmp_path / "file").write_text("")
    for arguments, told in {
        (a,): "1 run: expected two or more to compare",
        (a, b, a): f"{a}: named twice",
        (a, tmp_path): "no run began here",
        (a, b, "--output", tmp_path / "file"): "is there already; expected a new folder",
        (a, b, "--output", b): "is there already; expected a new folder",
        (a, b, "--limit", "-1"): "--limit -1: expected 0 or more",
    }.items():
        assert main(["compare", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
    assert main(["compare", str(a), str(b), "--output", str(tmp_path / "file" / "sub")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "file/sub: cannot be written (E" in line
