"""`tlx scan`: one table of everything that is wrong with a folder of images, how much there is, and an exit code."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.processes import server
from tl_experiments.cli.verbs import main

Scanned = Callable[..., tuple[int, dict[str, tuple[str, str]], str]]
SIX = {f"{split}/{name}": 4 for split in ("train", "val", "test") for name in ("cat", "dog")}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def root(make_folder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_folder(SIX, tmp_path / "root")


@pytest.fixture
def scanned(root: Path, capsys: pytest.CaptureFixture[str]) -> Scanned:
    """Scan the root; returns the exit code, file → (problem, what), and the last line."""

    def scan(*options: str) -> tuple[int, dict[str, tuple[str, str]], str]:
        code = main(["scan", str(root), "--workers", "0", *options])
        *lines, last = capsys.readouterr().out.splitlines()
        rows: list[list[str]] = []
        for cells in ([cell.strip() for cell in line.strip("│").split("│")] for line in lines if line[0] == "│"):
            if cells[1]:
                rows.append(cells)
            else:  # what did not fit into the line above
                file, problem, what = rows.pop()
                rows.append([file + cells[0], problem, f"{what} {cells[2]}".strip()])
        return code, {file: (problem, what) for file, problem, what in rows}, last

    return scan


def copy(root: Path, original: str, *, to: str) -> None:
    (root / to).write_bytes((root / original).read_bytes())


def test_a_clean_folder_is_said_to_be_clean(scanned: Scanned) -> None:
    assert scanned() == (0, {}, "24 images (8 train, 8 val, 8 test): nothing is wrong")


def test_everything_is_named_in_one_table(
    root: Path, scanned: Scanned, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    train = root / "train" / "cat"
    (train / "empty.jpg").write_bytes(b"")
    (train / "text.png").write_text("no image")
    (train / "cut.png").write_bytes((train / "0.png").read_bytes()[:50])
    make_folder({"val/owl": 1}, root)
    (train / "link.png").symlink_to(tmp_path / "gone.png")
    (root / "more").symlink_to(tmp_path)
    os.mkfifo(train / "pipe.png")
    copy(root, "train/cat/1.png", to="train/cat/copy.png")
    copy(root, "train/cat/2.png", to="test/cat/leak.png")
    copy(root, "train/cat/3.png", to="train/dog/wrong.png")
    code, table, last = scanned()
    assert code == 1
    assert {file: problem for file, (problem, _) in table.items()} == {
        "more": "link",
        "test/cat/leak.png": "leak",
        "train/cat/copy.png": "duplicate",
        "train/cat/cut.png": "undecodable",
        "train/cat/empty.jpg": "empty",
        "train/cat/link.png": "link",
        "train/cat/pipe.png": "no file",
        "train/cat/text.png": "undecodable",
        "train/dog/wrong.png": "mislabelled",
        "val/owl": "unknown class",
    }
    assert table["test/cat/leak.png"][1] == "the same image as train/cat/2.png, in another split"
    assert table["train/dog/wrong.png"][1] == "the same image as train/cat/3.png, of another class"
    assert last == (
        "33 images (15 train, 9 val, 9 test): 10 findings: 1 duplicate, 1 empty, 1 leak, 2 link, 1 mislabelled, "
        "1 no file, 2 undecodable, 1 unknown class"
    )


def test_a_leak_under_another_class_is_both(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(root, "train/cat/3.png", to="val/dog/wrong.png")
    assert main(["scan", str(root), "--workers", "0"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split("│")[2].strip() for line in lines if "val/dog/wrong.png" in line] == ["leak", "mislabelled"]
    assert last == "25 images (8 train, 9 val, 8 test): 2 findings: 1 leak, 1 mislabelled"


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_class_folder_is_named(root: Path, scanned: Scanned, split: str) -> None:
    for path in (root / split / "dog").iterdir():
        path.unlink()
    code, table, _ = scanned()
    assert (code, table[f"{split}/dog"][0]) == (1, "empty class")


def test_a_folder_of_classes_alone_is_scanned(make_folder: Callable[..., Path], tmp_path: Path, capsys) -> None:
    root = make_folder({"cat": 3, "dog": 4}, tmp_path / "classes")
    copy(root, "cat/0.png", to="dog/0.png")
    assert main(["scan", str(root)]) == 1
    assert "the same image as cat/0.png, of another class" in capsys.readouterr().out


def test_links_out_of_the_root_are_named_unless_they_may_be_followed(
    root: Path, scanned: Scanned, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    disk = make_folder({"elsewhere": 5}, tmp_path / "disk")
    (root / "train" / "cat" / "one.png").symlink_to(disk / "elsewhere" / "0.png")
    (root / "train" / "dog" / "more").symlink_to(disk / "elsewhere")
    code, table, _ = scanned()
    assert code == 1
    assert {file: problem for file, (problem, _) in table.items()} == {
        "train/cat/one.png": "link",
        "train/dog/more": "link",
    }
    code, table, last = scanned("--follow-links")
    assert table == {"train/dog/more/0.png": ("mislabelled", "the same image as train/cat/one.png, of another class")}
    assert last.startswith("30 images (14 train, 8 val, 8 test): 1 findings")


def test_the_images_of_a_table_are_scanned(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By their own splits, which the same positions of others would not be."""
    copy(root, "test/dog/0.png", to="train/dog/leak.png")
    (root / "val" / "cat" / "1.png").write_bytes(b"no image")
    paths = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    rows = [f"{path},{path.split('/')[1]},{path.split('/')[0]}" for path in (*paths, "val/dog/gone.png")]
    table = root / "table.csv"
    table.write_text("\n".join(["image_path,label,split", *rows]))
    assert main(["scan", str(table), "--workers", "0"]) == 1
    told = capsys.readouterr().out
    assert "26 images (9 train, 9 val, 8 test): 3 findings: 1 leak, 1 undecodable, 1 unreadable" in told
    for part in ("train/dog/leak.png", "test/dog/0.png", "val/cat/1.png", "val/dog/gone.png"):
        assert part in told
    assert main(["scan", str(root / "gone.csv")]) == 2
    assert "gone.csv: no such file; expected a table of images" in capsys.readouterr().err


def test_names_are_printed_whole_and_as_they_are(root: Path, scanned: Scanned) -> None:
    odd, long = "[red]x :smile: \x1b[31m\n.png", "n" * 200 + ".png"
    for name in (odd, long):
        (root / "train" / "cat" / name).write_bytes(b"")
    code, table, _ = scanned()
    assert code == 1
    assert set(table) == {r"train/cat/[red]x :smile: \x1b[31m\n.png", f"train/cat/{long}"}


def test_what_a_run_has_checked_is_not_checked_again(root: Path, capsys, make_member) -> None:
    from tests.watching import Notes
    from tl_experiments import build

    member = make_member("dataset=image_folder", f"dataset.root={root}")
    dataset, notes = build.build_dataset(member), Notes()
    backbone = build.build_backbone(member, dataset=dataset, strategy=build.build_strategy(member))
    build.build_images(member, dataset=dataset, backbone=backbone, watch=notes)
    assert [title for title in notes.titles if "checking" in title]
    assert main(["scan", str(root)]) == 0
    assert "checking" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "nowhere: no such folder; expected one with train/CLASS/*.jpg or CLASS/*.jpg"),
        (["ROOT", "--workers", "-1"], "--workers -1: expected 0 or more"),
        (["ROOT/train/cat"], "no folders in it, so no images"),
    ],
)
def test_wrong_input_is_one_line_and_another_code(root: Path, capsys, arguments: list[str], told: str) -> None:
    assert main(["scan", *(argument.replace("ROOT", str(root)) for argument in arguments)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line


def test_the_command_says_the_same_with_workers(make_folder: Callable[..., Path], root: Path, tmp_path: Path) -> None:
    make_folder({"train/cat": 40}, root)  # more than one of them looks at once
    (root / "train" / "cat" / "text.png").write_text("no image")
    done = server().start("scan", str(root), "--workers", "2", cwd=tmp_path, logs=tmp_path, program="tlx").end()
    assert done.code == 1, done.err
    assert "train/cat/text.png" in done.out
    assert done.err == ""
