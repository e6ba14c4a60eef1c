"""The journal of a run survives what befalls its writer, and holds every point once."""

import errno
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tl_experiments.runtime.errors import DataError
from tl_experiments.tracking import journal
from tl_experiments.tracking.journal import FILE, Header, Journal, JournalBusy, inside


def begin(folder: Path, uid: str = "u", store: str = "http://host") -> AbstractContextManager[Journal]:
    header = Header(
        experiment_name="e", run_name="0", uid=uid, parent_uid=None, tags={"tl.kind": "run"}, store=store, time=1
    )
    return Journal.continued(folder, header)


def points(kept: Journal) -> list[tuple[int, dict[str, float]]]:
    return [(entry["step"], entry["values"]) for entry in kept.entries if entry["kind"] == "metrics"]


def test_an_epoch_that_is_repeated_adds_nothing_and_a_summary_is_what_it_was_last(tmp_path: Path) -> None:
    with begin(tmp_path) as kept:
        for step, acc in ((1, 0.5), (2, 0.6), (2, 0.6)):
            kept.append_metrics({"val/acc": acc, "val/loss": float("nan")}, step=step)
        kept.append_metrics({"best": 0.6}, step=0)
    with begin(tmp_path) as kept:
        for step, acc in ((2, 0.6), (3, 0.7)):
            kept.append_metrics({"val/acc": acc}, step=step)
        kept.append_metrics({"best": 0.7}, step=0)
        kept.append_metrics({"best": 0.7}, step=0)
    read = Journal.read(tmp_path)
    acc = [(1, {"val/acc": 0.5}), (2, {"val/acc": 0.6}), (0, {"best": 0.6}), (3, {"val/acc": 0.7}), (0, {"best": 0.7})]
    assert points(read) == acc
    times = [entry["time"] for entry in read.entries]
    assert times == sorted(set(times)), "of two summaries MLflow shows the later one"


@pytest.mark.parametrize("torn", ['{"kind": "metrics", "st', "{", '{"kind": "tags", "values": {}}'])
def test_a_line_that_was_torn_costs_only_itself(torn: str, tmp_path: Path) -> None:
    with begin(tmp_path) as kept:
        kept.append_metrics({"val/acc": 0.5}, step=1)
    with (tmp_path / FILE).open("a") as file:
        file.write(torn)
    assert points(Journal.read(tmp_path)) == [(1, {"val/acc": 0.5})]
    with begin(tmp_path) as kept:
        kept.append_metrics({"val/acc": 0.6}, step=2)
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["header", "metrics", "metrics"]


def test_a_spoilt_line_keeps_its_place(tmp_path: Path) -> None:
    with begin(tmp_path) as kept:
        kept.append("begin", time=1)
        kept.append_metrics({"val/acc": 0.5}, step=1)
    path = tmp_path / FILE
    path.write_text(path.read_text().replace('"begin"', '"be\0gin'))
    assert [entry["kind"] for entry in Journal.read(tmp_path).entries] == ["unreadable", "metrics"]


def test_another_run_in_the_same_folder_begins_anew(tmp_path: Path) -> None:
    for uid in ("old", "new"):
        with begin(tmp_path, uid) as kept:
            assert kept.is_new
            kept.append("begin", time=1)
    read = Journal.read(tmp_path)
    assert (read.header.uid, len(read.entries)) == ("new", 1)


def test_a_run_that_goes_on_elsewhere_is_delivered_there(tmp_path: Path) -> None:
    for store in ("http://old", "http://new"):
        with begin(tmp_path, store=store) as kept:
            kept.append("begin", time=1)
    read = Journal.read(tmp_path)
    assert (read.header.store, len(read.entries)) == ("http://new", 2)


def test_one_process_at_a_time_has_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LOCK_SECONDS", 0)
    with begin(tmp_path), pytest.raises(JournalBusy, match="another process is writing"), begin(tmp_path):
        pass


def test_a_full_disk_leaves_whole_lines_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with begin(tmp_path) as kept:
        kept.append_metrics({"val/acc": 0.5}, step=1)
        monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:10]))
        kept.append_metrics({"val/acc": 0.6}, step=2)

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", full)
        kept.append_metrics({"val/acc": 0.7}, step=3)
        monkeypatch.setattr(os, "write", write)
        kept.append_metrics({"val/acc": 0.8}, step=4)
        assert kept.fault is not None
        assert [step for step, _ in points(kept)] == [1, 2, 3, 4], "the store may still be told"
    assert [step for step, _ in points(Journal.read(tmp_path))] == [1, 4]


@pytest.mark.parametrize("text", ["", "[]\n", '{"kind": "begin"}\n', '{"kind": "header", "uid": "x\' OR 1"}\n'])
def test_what_is_no_journal_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(DataError, match=f"{FILE}: cannot be read as the journal"):
        Journal.read(tmp_path)


def test_a_header_that_was_tampered_with_names_no_run(tmp_path: Path) -> None:
    with begin(tmp_path, uid="u"):
        pass
    path = tmp_path / FILE
    path.write_text(path.read_text().replace('"uid": "u"', '"uid": "u\' OR tags.x = \'"'))
    with pytest.raises(DataError):
        Journal.read(tmp_path)


def test_files_outside_of_the_folder_are_neither_kept_nor_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with begin(folder) as kept, pytest.raises(ValueError, match="is not in the subpath"):
        kept.append_path("file", tmp_path / "other.txt")
    for path in ("../other.txt", "/etc/hostname", "a/../../other.txt"):
        with pytest.raises(ValueError, match="outside"):
            inside(folder, path)
    assert inside(folder, "model/model.json") == folder / "model" / "model.json"


def test_what_another_run_has_not_delivered_is_set_aside_with_its_end(tmp_path: Path) -> None:
    with begin(tmp_path, "old") as kept:
        kept.append("begin", time=1)
        kept.append_metrics({"val/acc": 0.5}, step=1)
    with begin(tmp_path, "new") as kept:
        assert kept.aside == tmp_path / "tracking-old.jsonl"
        assert kept.entries == []
    aside = Journal.read(tmp_path, name="tracking-old.jsonl")
    assert [entry["kind"] for entry in aside.entries] == ["begin", "metrics", "end"]
    assert aside.entries[-1]["status"] == "KILLED"


def test_what_another_run_has_delivered_makes_room(tmp_path: Path) -> None:
    with begin(tmp_path, "old") as kept:
        kept.append("begin", time=1)
    sent = {"uid": "old", "run_id": "r", "entries": 1, "left": []}
    (tmp_path / "tracking.sent").write_text(json.dumps(sent))
    with begin(tmp_path, "new") as kept:
        assert kept.aside is None
    assert not list(tmp_path.glob("*-*"))


def test_a_journal_whose_first_line_is_spoilt_goes_on_with_what_can_be_read(tmp_path: Path) -> None:
    with begin(tmp_path) as kept:
        kept.append("begin", time=1, uid="u")
        kept.append_metrics({"val/acc": 0.5}, step=1)
    (tmp_path / "tracking.sent").write_text('{"uid": "u", "entries": 2, "left": []}')
    path = tmp_path / FILE
    spoilt = b"\0" + path.read_bytes()[1:]
    path.write_bytes(spoilt)
    with begin(tmp_path) as kept:
        assert not kept.is_new
        assert kept.aside is not None
        assert kept.aside.read_bytes() == spoilt
        kept.append_metrics({"val/acc": 0.5}, step=1)
        kept.append_metrics({"val/acc": 0.6}, step=2)
    assert points(Journal.read(tmp_path)) == [(1, {"val/acc": 0.5}), (2, {"val/acc": 0.6})]
    assert not (tmp_path / "tracking.sent").exists(), "it counts the lines of the old file"


@pytest.mark.parametrize("time", [-1, 10**30, 1.5, "1", None])
def test_a_header_begins_at_a_time_that_there_is(time: object, tmp_path: Path) -> None:
    with begin(tmp_path):
        pass
    path = tmp_path / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "time": time}) + "\n")
    with pytest.raises(DataError, match="header is missing or spoilt"):
        Journal.read(tmp_path)


@pytest.mark.parametrize("line", ["[" * 200_000, '{"kind": "metrics", "step": 1, "time": 1, "values": {"a": NaN}}'])
def test_a_line_that_is_too_deep_or_no_json_is_unreadable(line: str, tmp_path: Path) -> None:
    with begin(tmp_path):
        pass
    with (tmp_path / FILE).open("a") as file:
        file.write(line + "\n")
    assert [entry["kind"] for entry in Journal.read(tmp_path).entries] == ["unreadable"]
