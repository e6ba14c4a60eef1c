"""The page holds what a reader looks for, needs nothing from elsewhere, and takes every name for text."""

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_fixtures import DIGITS, Sweep

from tl_experiments.data.digits import digits
from tl_experiments.data.source import Split
from tl_experiments.sweep.comparison import compare
from tl_experiments.sweep.report.page import write_report

HOSTILE = "<img src=x onerror=alert(1)>&amp;"
ESCAPING = "</script><script>alert(1)</script>"


class Reader(HTMLParser):
    """Collects the elements and the text of a page, without scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.drawings: dict[str, Any] = {}
        self._words: list[str] = []
        self._open = ""
        self.feed(text)
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - the base class names it
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script" and self.elements[-1][1].get("id") == "drawings":
            assert "<" not in data  # nothing in it can open or close an element
            self.drawings = json.loads(data)
        elif self._open not in ("script", "style"):
            self._words.append(data)

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name))]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path, overrides=("epochs=2", "lr=1,2"))


@pytest.fixture
def read() -> Callable[..., Reader]:
    def written(sweep: Sweep, link: str | None = None) -> Reader:
        path = sweep.folder / "report.html"
        write_report(path, comparison=compare(sweep.plan, outcomes=sweep.outcomes), plan=sweep.plan, link=link)
        return Reader(path.read_text(encoding="utf-8"))

    return written


def test_the_page_says_what_won_what_varied_and_what_failed(sweep: Sweep, read: Callable[..., Reader]) -> None:
    sweep.finished({"lr": "1"}, val_acc=0.8, test_acc=0.7)
    sweep.finished({"lr": "2"}, val_acc=0.9, test_acc=0.6)
    sweep.unfinished({"lr": "3"}, cause="ran out of memory")
    page = read(sweep, link="http://127.0.0.1:5000/#/experiments/1")
    assert "Sweep birds" in page.text
    assert "3: 2 finished, 1 failed" in page.text
    assert "Best by val/acc lr=2 val/acc 0.9000 test/acc 0.6000" in page.text
    assert "McNemar" in page.text
    assert "epochs 2" in page.text
    assert "lr 1 2 3" in page.text
    assert "2 lr=3 FAILED ran out of memory" in page.text
    assert {"2/job.log", "0/", "http://127.0.0.1:5000/#/experiments/1"} <= set(page.attributes("href"))


def test_what_the_test_says_beside_accuracy_has_a_table_of_its_own(sweep: Sweep, read: Callable[..., Reader]) -> None:
    sweep.finished({"lr": "1", "seed": "0"}, val_acc=0.8, test__ece=0.1, val__temperature=1.5)
    sweep.finished({"lr": "1", "seed": "1"}, val_acc=0.8, test__ece=0.3, val__temperature=2.5)
    page = read(sweep)
    assert "rank configuration test/loss test/ece val/temperature 1 lr=1 0.7000 ± 0.0000 0.2000 ± 0.1414" in page.text
    assert "test/acc_top5" not in page.text, "no run has one"


def test_the_page_needs_nothing_from_elsewhere(sweep: Sweep, read: Callable[..., Reader]) -> None:
    sweep.finished({"lr": "1"}, val_acc=0.8)
    page = read(sweep)
    assert all(source.startswith("data:") for source in page.attributes("src"))
    assert not [element for element, _ in page.elements if element in ("link", "iframe", "object", "base")]
    assert all(not re.match(r"\w+:|//", address) for address in page.attributes("href"))
    assert "default-src 'none'" in page.attributes("content")[-1]
    assert len([element for element, attributes in page.elements if element == "script"]) == 3


def test_names_and_causes_are_text(sweep: Sweep, read: Callable[..., Reader]) -> None:
    true, images = (HOSTILE, ESCAPING, "owl", "owl"), [HOSTILE, ESCAPING, "c", "d"]
    for lr, b in ((HOSTILE, "1"), (ESCAPING, "2")):
        sweep.finished({"lr": lr, "b": b}, val_acc=0.8, true=true, images=images)
    sweep.unfinished({"lr": "y", "b": "</table>"}, cause=f"{HOSTILE} \udcff")
    page = read(sweep, link="javascript:alert(1)")
    names = [element for element, _ in page.elements]
    assert (names.count("script"), names.count("img")) == (3, 0)
    assert f"Best by val/acc lr={HOSTILE} b=1 " in page.text
    assert f"true {HOSTILE}" in page.text
    assert f"FAILED {HOSTILE} ?" in page.text
    assert not any("javascript" in address for address in page.attributes("href"))
    assert page.drawings["matrices"][0]["names"] == sorted({*true, "cat", "dog"})
    [axis] = [axis for axis in settings(page)["traces"][0]["dimensions"] if axis["label"] == "lr"]
    assert axis["ticktext"][0] == HOSTILE  # which plotly takes literally in this place alone
    assert page.drawings["plots"]["curves-acc"]["traces"][-1]["name"].startswith("0 lr=&lt;img src=x onerror=")


def settings(page: Reader) -> dict[str, Any]:
    return page.drawings["plots"]["settings"]


def test_parallel_coordinates_show_every_key_to_scale_and_in_full(sweep: Sweep, read: Callable[..., Reader]) -> None:
    long = "tf_efficientnetv2_s.in21k_ft_in1k_and_more"
    for lr, backbone, acc in (("0.1", long, 0.7), ("0.001", "resnet18", 0.8), ("0.01", "resnet18", 0.9)):
        for seed in "01":
            sweep.finished({"lr": lr, "backbone": backbone, "seed": seed}, val_acc=acc)
    [trace] = settings(read(sweep))["traces"]
    axes = {axis["label"]: axis for axis in trace["dimensions"]}
    assert list(axes) == ["backbone", "lr", "val/acc", "test/acc"]
    assert axes["lr"]["values"] == [-2.0, -3.0, -1.0]  # powers of ten, best row first
    assert axes["lr"]["ticktext"] == ["0.001", "0.01", "0.1"]
    assert axes["backbone"]["ticktext"] == ["resnet18", long]
    assert axes["backbone"]["values"] == [0, 0, 1]
    assert trace["line"]["color"] == axes["val/acc"]["values"] == [0.9, 0.8, 0.7]


def test_a_key_that_not_all_take_has_a_place_for_those(sweep: Sweep, read: Callable[..., Reader]) -> None:
    sweep.finished({"strategy": "feature"}, val_acc=0.8)
    sweep.finished({"strategy": "finetune", "decay": "0.5"}, val_acc=0.7)
    [trace] = settings(read(sweep))["traces"]
    [axis] = [axis for axis in trace["dimensions"] if axis["label"] == "decay"]
    assert [axis["ticktext"][place] for place in axis["values"]] == ["–", "0.5"]


@pytest.mark.parametrize(
    ("values", "kind"), [(("1e-4", "1e-2"), "log"), (("1", "2"), "linear"), (("a", "b"), "category")]
)
def test_one_key_is_a_plain_chart(
    sweep: Sweep, read: Callable[..., Reader], values: tuple[str, str], kind: str
) -> None:
    for value in values:
        sweep.finished({"lr": value}, val_acc=0.8)
    chart = settings(read(sweep))
    assert chart["traces"][0]["type"] == "scatter"
    assert chart["layout"]["xaxis"]["type"] == kind


@pytest.mark.parametrize("values", [({},), ({"seed": "0"}, {"seed": "1"})])
def test_where_nothing_but_the_seed_varies_no_chart_pretends(
    sweep: Sweep, read: Callable[..., Reader], values: tuple[dict[str, str], ...]
) -> None:
    for job in values:
        sweep.finished(job, val_acc=0.8)
    page = read(sweep)
    assert sorted(page.drawings["plots"]) == ["curves-acc", "curves-loss"]
    assert "Only one configuration has a result" in page.text


def test_rows_that_no_key_tells_apart_get_no_chart_of_settings(sweep: Sweep, read: Callable[..., Reader]) -> None:
    for seed in "01":
        sweep.finished({"seed": seed}, val_acc=0.8, config={"dataset": {"split_seed": int(seed)}})
    assert "settings" not in read(sweep).drawings["plots"]


def test_seeds_share_the_colour_of_their_row(sweep: Sweep, read: Callable[..., Reader]) -> None:
    for lr, acc in (("1", 0.8), ("2", 0.9)):
        for seed in "01":
            sweep.finished({"lr": lr, "seed": seed}, val_acc=acc, num_trained_params=int(lr))
    plots = read(sweep).drawings["plots"]
    traces = {trace["name"][:1]: trace for trace in plots["curves-acc"]["traces"]}
    for shared in ([traces[job]["line"]["color"] for job in "0123"], [traces[job]["legendgroup"] for job in "0123"]):
        assert shared[0] == shared[1] != shared[2] == shared[3]
    assert {trace["name"]: trace["x"] for trace in plots["cost-params"]["traces"]} == {"lr=1": [1], "lr=2": [2]}


def test_accuracy_over_labels_is_a_line_for_each_other_setting(sweep: Sweep, read: Callable[..., Reader]) -> None:
    for size, images in (("1.0", 1294), ("0.01", 13), ("0.1", 129)):
        for strategy, gain in (("feature", 0.0), ("finetune", 0.3)):
            for seed in "01":
                values = {"dataset.train_size": size, "strategy": strategy, "seed": seed}
                acc = round(gain + images / 2000 + 0.02 * int(seed), 5)
                sweep.finished(values, val_acc=acc, test_acc=acc, num_train_images=images)
    page = read(sweep)
    chart = page.drawings["plots"]["labels"]
    finetune, feature = chart["traces"]  # the best first
    assert (finetune["name"], feature["name"]) == ("finetune", "feature")
    assert finetune["x"] == feature["x"] == [13, 129, 1294]
    assert feature["y"] == [0.0165, 0.0745, 0.657]
    assert feature["error_y"]["array"] == [0.014142] * 3
    assert finetune["line"]["color"] != feature["line"]["color"]
    axis = chart["layout"]["xaxis"]
    assert (axis["type"], axis["tickvals"]) == ("log", [13, 129, 1294])
    assert "fewer images also mean fewer steps" in page.text
    assert "training images" in page.drawings["plots"]["labels"]["traces"][0]["text"][0]
    assert "1,294" in page.text  # the table's column


def test_other_data_make_no_line_over_labels(sweep: Sweep, read: Callable[..., Reader]) -> None:
    for name, images in (("digits", 1294), ("cifar10", 45_000)):
        sweep.finished({"dataset": name}, val_acc=0.8, num_train_images=images)
    sweep.finished({"dataset": "old"}, val_acc=0.8, num_train_images=None)  # of an older version
    assert "labels" not in read(sweep).drawings["plots"]


def test_costs_are_drawn_under_test_acc_with_bars_both_ways(sweep: Sweep, read: Callable[..., Reader]) -> None:
    for strategy, params in (("knn", 0), ("feature", 12_810), ("finetune", 3_383_834)):
        for seed in "01":
            values = {"strategy": strategy, "seed": seed}
            sweep.finished(values, val_acc=0.9, test_acc=0.6 + 0.1 * int(seed), num_trained_params=params)
    plots = read(sweep).drawings["plots"]
    points = {trace["name"]: trace for trace in plots["cost-params"]["traces"]}
    assert {name: point["x"] for name, point in points.items()} == {
        "knn": [1000], "feature": [12_810], "finetune": [3_383_834],
    }  # fmt: skip
    axis = plots["cost-params"]["layout"]["xaxis"]
    assert (axis["type"], axis["tickvals"][:2], axis["ticktext"][:2]) == ("log", [1e3, 1e4], ["0", "10k"])
    assert all((point["y"], point["error_y"]["array"]) == ([0.65], [0.070711]) for point in points.values())
    assert all("error_x" in trace for trace in plots["cost-seconds"]["traces"])


def test_epochs_without_a_number_are_gaps(sweep: Sweep, read: Callable[..., Reader]) -> None:
    sweep.finished({"lr": "1"}, val_acc=0.8, val_losses=(0.5, None, 0.25), test_acc=None)
    sweep.finished({"lr": "9"}, val_acc=None, val_losses=(None,))
    plots = read(sweep).drawings["plots"]
    assert [trace["y"] for trace in plots["curves-loss"]["traces"]] == [[0.5, None, 0.25]]


def test_confusion_matrices_add_up_the_seeds_of_the_best_rows(sweep: Sweep, read: Callable[..., Reader]) -> None:
    for seed, said in (("0", ("cat", "dog", "owl", "cat")), ("1", ("dog", "dog", "owl", "cat"))):
        sweep.finished({"lr": "best", "seed": seed}, val_acc=0.99, said=said)
    for index in range(7):
        sweep.finished({"lr": str(index), "seed": "0"}, val_acc=index / 10)
    page = read(sweep)
    matrices = page.drawings["matrices"]
    assert len(matrices) == 6
    assert matrices[0] == {"names": ["cat", "dog", "owl"], "counts": [[1, 1, 0], [0, 2, 0], [2, 0, 2]]}
    assert "62.50% right, 2 seeds added up" in page.text
    assert "2 further rows are not shown" in page.text


def sweep_of_digits(sweep: Sweep, *, wrong: tuple[int, ...]) -> Split:
    """Two runs on scikit-learn's digits that share `wrong` and have a mistake of their own each; returns the test."""
    data = digits(**{key: value for key, value in DIGITS.items() if key != "_target_"})
    names = [data.test.source.name(int(index)) for index in data.test.indices]
    true = [data.class_names[label] for label in data.test.labels]
    for own, lr in ((0, "1"), (1, "2")):
        said = [str((int(name) + 1) % 10) if index in (own, *wrong) else name for index, name in enumerate(true)]
        sweep.finished({"lr": lr}, val_acc=0.9, images=names, true=true, said=said)
    return data.test


def test_what_all_runs_got_wrong_is_shown(sweep: Sweep, read: Callable[..., Reader]) -> None:
    test = sweep_of_digits(sweep, wrong=(5, 7))
    page = read(sweep)
    assert f"2 of {len(test)} test images were classified wrongly by all 2 finished runs." in page.text
    sources = page.attributes("src")
    for index, source in zip((5, 7), sources, strict=True):
        original = test.source.image(int(test.indices[index]))
        assert test.source.name(int(test.indices[index])) in page.text
        shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert shown.size == (160, 160)  # 8 pixels of digits, enlarged twenty times
        assert shown.tobytes() == original.resize((160, 160), Image.Resampling.NEAREST).tobytes()


def test_pictures_that_are_no_longer_there_leave_names_and_a_reason(sweep: Sweep, read: Callable[..., Reader]) -> None:
    config = {"dataset": {**DIGITS, "_target_": "tl_experiments.data.folder.image_folder", "root": "/gone"}}
    for lr in "12":
        sweep.finished(
            {"lr": lr}, val_acc=0.9, said=("dog", "dog", "owl", "owl"), images=["a b.png", "b", "c", "d"], config=config
        )
    page = read(sweep)
    assert page.attributes("src") == []
    assert "The pictures cannot be shown: " in page.text
    assert "a b.png" in page.text


def test_other_pictures_under_other_names_are_not_shown(sweep: Sweep, read: Callable[..., Reader]) -> None:
    sweep.finished({"lr": "1"}, val_acc=0.9, said=("dog", "dog", "owl", "owl"))
    page = read(sweep)
    assert page.attributes("src") == []
    assert "no longer those that the runs saw" in page.text
    assert "true cat said dog" in page.text


def test_runs_on_other_data_do_not_count(sweep: Sweep, read: Callable[..., Reader]) -> None:
    sweep.finished({"lr": "1"}, val_acc=0.9, said=("dog", "dog", "owl", "owl"))
    sweep.finished({"lr": "2"}, val_acc=0.8, dataset_fingerprint="other")
    assert "1 of 4 test images was classified wrongly by the only finished run that predicted" in read(sweep).text


def test_where_no_image_is_wrong_everywhere_the_page_says_so(sweep: Sweep, read: Callable[..., Reader]) -> None:
    sweep_of_digits(sweep, wrong=())
    assert "No test image was classified wrongly by all 2 finished runs" in read(sweep).text


def test_a_sweep_without_results_has_a_page(sweep: Sweep, read: Callable[..., Reader]) -> None:
    sweep.unfinished({"lr": "1"})
    sweep.unfinished({"lr": "2"}, state="PLANNED", cause=None)
    page = read(sweep)
    assert "There is no best run" in page.text
    assert "No run finished." in page.text
    assert page.drawings == {"plots": {}, "matrices": []}
    assert page.attributes("href") == ["0/job.log"]


def test_files_that_went_missing_do_not_spoil_the_page(sweep: Sweep, read: Callable[..., Reader]) -> None:
    for lr in "12":
        folder = sweep.finished({"lr": lr}, val_acc=0.8, said=None).folder
        (folder / "metrics.jsonl").unlink()
        (folder / "model" / "model.json").unlink()
    page = read(sweep)
    assert "The predictions of the winner cannot be read." in page.text
    assert "its matrix is left out" in page.text
    assert "curves-acc" not in page.drawings["plots"]


def test_rows_can_be_sorted_by_what_they_hold(sweep: Sweep, read: Callable[..., Reader]) -> None:
    """The script sorts by `data-value`; what is shown may be rounded or a dash."""
    sweep.finished({"lr": "1e-3"}, val_acc=0.123456789)
    sweep.finished({"lr": "10"}, val_acc=None, test_acc=None)
    cells = [
        attributes for element, attributes in read(sweep).elements if element == "td" and "data-value" in attributes
    ]
    assert [cell["data-value"] for cell in cells] == [
        "1", "1e-3", "0.123456789", "0.5", "10.0", "1000",
        "2", "10", "", "", "11.0", "1000",
    ]  # fmt: skip
