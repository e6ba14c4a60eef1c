"""Runs that are done again from their record: the verdict, what it names, and records that are refused."""

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from tests.commands import SMALL
from tests.conftest import compose_test_member
from tests.faults.processes import server
from tl_experiments.cli.verbs import main
from tl_experiments.experiment import run_experiments
from tl_experiments.verify.recorded import read_recorded
from tl_experiments.verify.reproduce import FILE, reproduce
from tl_experiments.verify.verdict import Verdict, Word

TINY = (
    *SMALL,
    *("backbone.image_size=32", "dataset=image_folder", "runtime.device=cpu", "runtime.threads=1", "epochs=2"),
)
NUM_CLASSES, PER_CLASS = 3, 12
LIMIT_SECONDS = 240


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and `sweep`: two heads of one bank, in folders `0` and `1`, which take the same images."""
    folder = tmp_path_factory.mktemp("first")
    digits = load_digits()
    for label in range(NUM_CLASSES):
        (folder / "images" / f"class {label}").mkdir(parents=True)
        for index, pixels in enumerate(digits.images[digits.target == label][:PER_CLASS]):
            Image.fromarray((pixels * 15).astype("uint8")).save(folder / "images" / f"class {label}" / f"{index}.png")
    typed = (*TINY, f"dataset.root={folder / 'images'}")
    members = [
        compose_test_member(folder / "sweep" / str(job), *typed, f"lr={lr}") for job, lr in enumerate((1e-3, 1e-2))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # outside of any repository
        run_experiments([replace(member, sweep_id="s", host=folder / "sweep" / "0") for member in members])
    return folder


@pytest.fixture
def job(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The second of the heads, in a copy that may be spoilt; commands are typed in an empty folder."""
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    return Path(shutil.copytree(first / "sweep", tmp_path / "sweep")) / "1"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type `tlx reproduce ...`, which is wrong input, and return the one line that it answers; nothing was done."""

    def type_it(*arguments: object) -> str:
        assert main(["reproduce", *map(str, arguments)]) == 2
        told = capsys.readouterr()
        [line] = told.err.splitlines()
        assert told.out == ""
        assert not list(Path.cwd().rglob("run.json"))
        return line

    return type_it


def edit(path: Path, **values: Any) -> None:
    """Change values of a file of YAML, or of JSON, which is YAML too."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) | values
    dumped = json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content)
    path.write_text(dumped, encoding="utf-8")


def names(verdict: Verdict) -> list[str]:
    return [difference.what for difference in verdict.circumstances]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_head_of_a_bank_alone_has_the_same_bits_and_its_verdict_is_written_down(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(job.parent)
    assert main(["reproduce", str(job)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    *_, same, files, line = told.out.splitlines()
    assert line == (
        "IDENTICAL: same bits in weights, metrics and predictions; what differs between then and now: nothing that is "
        "on record; of the code no record says whether it does"
    )
    assert "data, weights to begin with, host, processor, device, threads, processes, runtime.train_precision" in same
    [folder] = (Path.cwd() / "outputs" / "reproductions").iterdir()
    assert folder.name.startswith("sweep_1_")
    assert files == f"files   {folder}"
    document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    assert (document["verdict"], document["line"], document["results"]) == ("IDENTICAL", line, [])
    then, now = (json.loads((path / "result.json").read_text(encoding="utf-8")) for path in (job, folder))
    assert [document[key]["uid"] for key in ("then", "now")] == [then["uid"], now["uid"]]
    assert then["uid"] != now["uid"]
    assert then["weights_sha256"] == now["weights_sha256"]
    assert then["fingerprint"] == now["fingerprint"]
    assert (now["name"], now["run_id"]) == (then["name"], None)
    assert contents(job.parent) == before


def test_every_metric_of_the_best_epoch_and_the_test_is_compared(job: Path) -> None:
    result = json.loads((job / "result.json").read_text(encoding="utf-8"))
    compared = read_recorded(job, allow_targets=[]).ending.summary
    assert compared == {key: value for key, value in result.items() if key.startswith(("val/", "test/"))}
    assert {"val/temperature", "test/ece", "test/ece_calibrated", "test/loss_calibrated", "test/f1_macro"} <= {
        *compared
    }


def test_nothing_that_was_kept_takes_the_place_of_computing(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read from a cache proves nothing of the code as it is now; it is used where that is asked for."""
    monkeypatch.setenv("TL_CACHE_DIR", str(Path.cwd() / "cache"))
    assert reproduce(str(job)).word is Word.IDENTICAL
    assert not (Path.cwd() / "cache").exists()
    assert reproduce(str(job), changes=["runtime.cache=true"]).word is Word.IDENTICAL
    assert (Path.cwd() / "cache").exists()


def test_another_seed_in_its_config_is_another_run(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(job / "config.yaml", seed=1)
    assert main(["reproduce", str(job)]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("DIFFERENT: not the same run: configuration and weights to begin with differ; ")
    assert "what differs between then and now: configuration, weights to begin with" in line


def test_a_config_that_was_edited_is_told_though_it_has_no_effect_on_what_is_compared(job: Path) -> None:
    runtime = yaml.safe_load((job / "config.yaml").read_text(encoding="utf-8"))["runtime"]
    edit(job / "config.yaml", runtime={**runtime, "train_precision": "bf16"})  # nothing but a head is trained
    verdict = reproduce(str(job))
    assert (verdict.word, names(verdict)) == (Word.IDENTICAL, ["configuration"])


@pytest.mark.slow
def test_other_threads_and_batches_are_named_and_are_no_other_run(job: Path) -> None:
    verdict = reproduce(str(job), changes=["runtime.threads=2", "runtime.infer_batch_size=3"])
    assert verdict.word in (Word.IDENTICAL, Word.CLOSE)
    assert names(verdict) == ["threads", "runtime.infer_batch_size"]
    assert [(found.then, found.now) for found in verdict.circumstances] == [("1", "2"), ("32", "3")]


def test_an_image_that_changed_is_named_as_data(job: Path, first: Path) -> None:
    images = Path(shutil.copytree(first / "images", job.parent / "images"))
    assert reproduce(str(job), changes=[f"dataset.root={images}"]).word is Word.IDENTICAL
    for path in images.glob("class 0/*.png"):
        with Image.open(path) as image:
            image.point(lambda value: 255 - value).save(path)
    verdict = reproduce(str(job), changes=[f"dataset.root={images}"])
    assert (verdict.word, names(verdict)) == (Word.DIFFERENT, ["data"])
    assert verdict.beyond[0] == "not the same run: data differ"


def test_images_that_have_moved_are_asked_for(job: Path, first: Path, refused: Callable[..., str]) -> None:
    dataset = yaml.safe_load((job / "config.yaml").read_text(encoding="utf-8"))["dataset"]
    edit(job / "config.yaml", dataset={**dataset, "root": "/gone/images"})
    line = refused(job)
    assert line.startswith("error: dataset.root=/gone/images: the run's images are not there any more; expected ")
    assert "--set dataset.root=PATH" in line
    assert "no such folder" in refused(job, "--set", "dataset.root=/gone/too")
    assert reproduce(str(job), changes=[f"dataset.root={shlex.quote(str(first / 'images'))}"]).word is Word.IDENTICAL


def test_code_in_a_record_is_not_run(job: Path, refused: Callable[..., str]) -> None:
    edit(job / "config.yaml", strategy={"_target_": "os.system", "batchnorm": "eval", "views": None})
    line = refused(job)
    assert line.startswith(f"error: {job / 'config.yaml'}: strategy._target_=os.system: not an allowed target; ")
    assert list(Path.cwd().iterdir()) == []


def test_code_of_ones_own_is_allowed_by_who_types_alone(
    job: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.py").write_text("from tl_experiments.strategies.feature import Feature\nclass Own(Feature): ...\n")
    monkeypatch.syspath_prepend(Path.cwd())
    strategy = yaml.safe_load((job / "config.yaml").read_text(encoding="utf-8"))["strategy"]
    edit(job / "config.yaml", strategy={**strategy, "_target_": "mine.Own"}, allow_targets=["mine."])
    assert "strategy._target_=mine.Own: not an allowed target" in refused(job)
    assert main(["reproduce", str(job), "--allow-targets", "mine.", "other."]) == 0


def test_a_run_that_fails_now_is_different(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = yaml.safe_load((job / "config.yaml").read_text(encoding="utf-8"))["optimizer"]
    edit(job / "config.yaml", lr=1e30, optimizer={**optimizer, "lr": 1e30})
    assert main(["reproduce", str(job)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: DIFFERENT: the run finished then, and failed now: ")
    assert "loss is not finite" in told


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["--set", "seed=1"], "error: seed=1: the run has seed=0; it may change runtime.*, checkpoint.*, dataset.root"),
        (["--set", "runtime.thread=1"], "error: runtime.thread=1: the run has runtime.thread=None; it may change"),
        (["--set", "runtime.threads=0"], "error: runtime.threads=0: expected 1 to 1024"),
        (["--set", "tracking.uri=x"], "error: tracking.uri=x: the run has tracking.uri=None; it may change"),
        (["--keep", "."], "is there already; expected a new folder, or an empty one"),
    ],
)
def test_what_would_be_another_run_is_refused(
    typed: list[str], line: str, job: Path, refused: Callable[..., str]
) -> None:
    if "--keep" in typed:
        Path("something").touch()
    assert line in refused(job, *typed)


def test_what_has_not_finished_has_nothing_to_compare(job: Path, refused: Callable[..., str]) -> None:
    edit(job / "result.json", status="KILLED")
    line = refused(job)
    assert line == (
        f"error: {job}: the run has not finished, so that there is nothing to compare with; "
        f"to go on with it: python run.py -m sweep.resume={job.parent}"
    )
    edit(job / "run.json", sweep_id=None)
    assert refused(job).endswith(f"to go on with it: python run.py resume={job}")
    (job / "result.json").unlink()
    assert "the run has not finished" in refused(job)
    assert "no run began here" in refused(job.parent)
    assert "no run began in" in refused("latest")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("predictions.csv", "FileNotFoundError"),
        ("metrics.jsonl", "FileNotFoundError"),
        ("config.yaml", "no such file; expected the config.yaml of a run"),
    ],
)
def test_a_record_that_lacks_a_file_is_refused(name: str, told: str, job: Path, refused: Callable[..., str]) -> None:
    (job / name).unlink()
    assert told in refused(job)


def test_a_result_that_was_cut_short_is_refused(job: Path, refused: Callable[..., str]) -> None:
    result = json.loads((job / "result.json").read_text(encoding="utf-8"))
    (job / "result.json").write_text(json.dumps({key: result[key] for key in ("uid", "status")}), encoding="utf-8")
    assert "lacks what a finished run leaves, or it was changed: KeyError: 'weights_sha256'" in refused(job)


@pytest.mark.slow
def test_a_job_of_a_tracked_sweep_is_done_again_by_its_id(first: Path, tmp_path: Path) -> None:
    def type_it(program: str, *arguments: str) -> str:
        started = server().start(*arguments, cwd=tmp_path, logs=tmp_path, program=program)
        done = started.end(limit_seconds=LIMIT_SECONDS)
        assert done.code == 0, done.err
        return done.out

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    where = (f"dataset.root={first / 'images'}", f"hydra.sweep.dir={tmp_path / 'jobs'}", f"tracking.uri={store}")
    out = type_it("run.py", "-m", *TINY, "lr=1e-3,1e-2", *where)
    assert "2 heads together" in out
    before = json.loads((tmp_path / "jobs" / "1" / "result.json").read_text(encoding="utf-8"))
    keep = tmp_path / "again"
    named = (before["run_id"], "--tracking-uri", store)
    out = type_it("tlx", "reproduce", *named, "--keep", str(keep))
    assert out.splitlines()[-1].startswith("IDENTICAL: ")
    after = json.loads((keep / "result.json").read_text(encoding="utf-8"))
    assert (after["weights_sha256"], after["run_id"]) == (before["weights_sha256"], None)
