"""Shards of others and of our own: read where they lie, fetched whole, and refused in one line when they are wrong."""

import gzip
import io
import json
import os
import pickle
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.request import Request

import numpy as np
import pyarrow as pa
import pytest

from tests.data.shards import image, packed, samples, shards, write_shard
from tests.watching import Notes
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.data import tar_fetch
from tl_experiments.data.canvases import cut
from tl_experiments.data.dataset_images import DatasetImages, load_dataset_images
from tl_experiments.data.source import Dataset, Split
from tl_experiments.data.tar_source import _MOST_OPEN, TarSource
from tl_experiments.data.transforms import Canvas
from tl_experiments.runtime.cached_file import cached_file
from tl_experiments.runtime.errors import DataError, SettingError, UserError

CANVAS = Canvas(size=8, crop=8, interpolation="bilinear")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two shards of train and one of val, as WebDataset writes them."""
    root = tmp_path / "foreign"
    write_shard(root / "photos-train-000000.tar", samples(0, 30, classes=["2", "10"]))
    write_shard(root / "photos-train-000001.tar", samples(30, 30, classes=["2", "10"]))
    write_shard(root / "photos-val-000000.tar", samples(60, 8, classes=["2", "10"]))
    return root


def loaded(dataset: Dataset, *, notes: Notes | None = None) -> DatasetImages:
    watch = notes or Notes()
    return load_dataset_images(dataset, canvas=CANVAS, workers=0, memory_bytes=0, store=None, checks=None, watch=watch)


def contents(split: Split) -> list[bytes]:
    return [split.source.content(index) for index in split.indices.tolist()]


def test_shards_of_others_are_read_by_their_names(foreign: Path) -> None:
    dataset = shards(foreign)
    assert dataset.class_names == ("2", "10")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [48, 8, 12]
    assert contents(dataset.val) == [image(number) for number in range(60, 68)]
    assert dataset.val.labels.tolist() == [0, 1] * 4
    assert dataset.val.source.name(int(dataset.val.indices[3])) == "photos-val-000000.tar/0063.png"
    assert dataset.val.source.image(int(dataset.val.indices[3])).getpixel((0, 0)) == (63, 0, 100)


@pytest.mark.parametrize("names", ["photos-train-00000{0..1}.tar", "photos-{train-000000,train-000001,val-000000}.tar"])
def test_a_pattern_names_shards(foreign: Path, names: str) -> None:
    dataset = shards(foreign / names)
    assert len(dataset.train) + len(dataset.test) + len(dataset.val) == (60 if "0..1" in names else 68)


def test_splits_may_be_folders(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("validation", 20), ("test", 40)):
        write_shard(tmp_path / "root" / split / "0.tar", samples(first, 10))
    dataset = shards(tmp_path / "root")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [10, 10, 10]
    assert contents(dataset.test) == [image(number) for number in range(40, 50)]


def test_an_index_is_made_once_and_again_when_a_shard_changes(foreign: Path) -> None:
    first, again, changed = Notes(), Notes(), Notes()
    shards(foreign, watch=first)
    before = loaded(shards(foreign, watch=again)).fingerprint
    write_shard(foreign / "photos-val-000000.tar", samples(160, 8, classes=["2", "10"]))
    after = loaded(shards(foreign, watch=changed)).fingerprint
    assert (first.titles, again.titles) == (["looking through 3 shards, once"], [])
    assert changed.titles == first.titles
    assert before != after


def test_nothing_is_read_at_the_start_of_a_run_on_a_pack(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(make_folder({"a": 20, "b": 20}, tmp_path / "root"), tmp_path / "packed")
    dataset = shards(tmp_path / "packed")
    monkeypatch.setattr(TarSource, "content", lambda *_: pytest.fail("an image was read"))
    images = loaded(dataset)
    assert len(images.train) == 24
    assert len(set(images.train.digests)) == 24
    assert images.train.names[0].startswith(("a/", "b/"))


def test_digests_are_those_of_the_contents(foreign: Path) -> None:
    dataset = shards(foreign)
    images = loaded(dataset)
    assert list(images.val.digests) == [sha256(content).hexdigest() for content in contents(dataset.val)]
    assert list(images.train.digests) == [sha256(content).hexdigest() for content in contents(dataset.train)]
    assert images.train.digests[1:3][0] == images.train.digests[1]


def test_other_decoders_check_the_images_again(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(make_folder({"a": 20, "b": 20}, tmp_path / "root"), tmp_path / "packed")
    monkeypatch.setattr("tl_experiments.data.tar_index.current_decoding", lambda: {"decoding": 0})
    notes = Notes()
    loaded(shards(tmp_path / "packed"), notes=notes)
    assert "checking 24 train images" in notes.titles


def test_no_more_files_are_open_than_a_process_may_have(tmp_path: Path) -> None:
    for number in range(_MOST_OPEN + 6):
        write_shard(tmp_path / "many" / f"{number:03d}.tar", samples(2 * number, 2))
    dataset = shards(tmp_path / "many")
    before = len(list(Path("/proc/self/fd").iterdir()))
    source = dataset.train.source
    for _ in range(2):
        assert [source.content(index) for index in range(len(source))] == [image(n) for n in range(len(source))]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + _MOST_OPEN


def test_bad_images_are_named_or_left_out(tmp_path: Path) -> None:
    bad = [{"__key__": "bad", "jpg": b"no image", "cls": b"1"}, {"__key__": "none", "jpg": b"", "cls": b"0"}]
    write_shard(tmp_path / "bad" / "a.tar", [*samples(0, 20), *bad])
    with pytest.raises(DataError) as caught:
        loaded(shards(tmp_path / "bad"))
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(
        "2 of 22 images cannot be used; replace or remove them, or leave them out by dataset.on_bad"
    )
    assert sorted(line.split(":")[0].strip() for line in lines) == ["a.tar/bad.jpg", "a.tar/none.jpg"]
    images = loaded(shards(tmp_path / "bad", on_bad_image="skip"))
    assert len(images.train) + len(images.val) + len(images.test) == 20
    assert sorted(image.name for image in images.skipped) == ["a.tar/bad.jpg", "a.tar/none.jpg"]


def bytes_of(path: Path) -> bytes:
    return write_shard(path, samples(0, 20)).read_bytes()


WRONG = {
    "cut": "damaged, cut off or compressed",
    "cut where an image ends": "damaged or cut off",
    "compressed": r"damaged, cut off or compressed \(.*\); expected a whole tar file as it is",
    "text": "damaged, cut off or compressed",
    "twice": r"0003\.cls: duplicate file name",
    "later": "two samples are called 0000; expected each once",
    "no label": r"sample 0000 has no label; expected KEY\.cls beside KEY\.png",
    "no image": r"sample 0000 has no image; expected one, as KEY\.jpg, and KEY\.cls",
    "two images": r"sample 0000 has 2 images \(jpg, png\); expected one",
    "label": r"0000\.cls is no label; expected a number or a name",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_shard_is_told_in_a_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "wrong.tar"
    content, (first, *rest) = bytes_of(path), samples(0, 20)
    made = {
        "cut": lambda: content[:7000],
        "cut where an image ends": lambda: content[: 512 * 8],
        "compressed": lambda: gzip.compress(content),
        "text": lambda: b"this is text " * 100,
    }
    written = {
        "twice": [first, *rest[:3], rest[2]],
        "later": [first, *rest, first],
        "no label": [{key: first[key] for key in ("__key__", "png")}],
        "no image": [{key: first[key] for key in ("__key__", "cls")}],
        "two images": [{**first, "jpg": first["png"]}],
        "label": [{**first, "cls": b"\xff\xfe"}],
    }
    path.write_bytes(made[what]()) if what in made else write_shard(path, written[what])
    with pytest.raises(DataError, match=WRONG[what]) as caught:
        shards(path)
    assert "\n" not in str(caught.value)
    assert "wrong.tar" in str(caught.value)


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("nowhere", "nowhere: no such file; expected a folder of tar files"),
        ("empty", "dataset.root={tmp}/empty: no .tar files in it; expected a folder"),
        ("mixed", "a.tar does not tell its split and others do; expected train, val or test in the name of each"),
        ("untrained", "dataset.root={tmp}/untrained: no shard is of train; expected some to learn from"),
        ("strange", "val has images of '7', of which train has none"),
        ("lone", "lone: found one class (0); classification needs at least two"),
        ("{{a,b}.tar", "dataset.root={tmp}/{{a,b}.tar: its braces do not match"),
        ("{0..99999999}.tar", "dataset.root={tmp}/{0..99999999}.tar: more than 1,000,000 shards"),
    ],
)
def test_a_wrong_root_is_told_in_a_line(tmp_path: Path, root: str, told: str) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("mixed/train-0.tar", "mixed/a.tar", "untrained/test-0.tar", "strange/train-0.tar"):
        write_shard(tmp_path / name, samples(0, 4))
    write_shard(tmp_path / "strange/val-0.tar", samples(9, 4, classes=["7"]))
    write_shard(tmp_path / "lone/0.tar", samples(0, 4, classes=["0"]))
    with pytest.raises(UserError) as caught:
        shards(tmp_path / root)
    assert told.replace("{tmp}", str(tmp_path)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "root",
    ["pipe:touch {marker}", "PIPE:touch {marker}", "gs://bucket/a.tar", "ftp://host/a.tar", "file:///etc/passwd.tar"],
)
def test_nothing_is_read_that_needs_a_command(root: str, tmp_path: Path, make_member: Callable[..., Member]) -> None:
    typed = root.format(marker=tmp_path / "marker")
    with pytest.raises(SettingError, match=r"is not read; expected a folder of tar files"):
        shards(typed)
    with pytest.raises(SettingError, match=r"is not read; expected a folder of tar files"):
        shards(f"http://127.0.0.1/a.tar::{typed}")
    with pytest.raises(ConfigError, match=r"expected a folder of tar files, their names, or a URL of http or https"):
        make_member("dataset=webdataset", f"dataset.root='{typed}'")
    assert not (tmp_path / "marker").exists()


def test_pickles_beside_images_are_not_opened(tmp_path: Path) -> None:
    code = b"cos\nsystem\n(S'touch " + str(tmp_path / "marker").encode() + b"'\ntR."
    write_shard(tmp_path / "shard.tar", [{**sample, "pkl": code, "pth": code} for sample in samples(0, 20)])
    assert len(loaded(shards(tmp_path / "shard.tar")).train) == 12
    assert not (tmp_path / "marker").exists()


@pytest.fixture
def pack(make_folder: Callable[..., Path], tmp_path: Path) -> Path:
    packed(make_folder({"a": 20, "b": 20}, tmp_path / "root"), tmp_path / "pack", num_shards=2)
    return tmp_path / "pack"


def test_a_shard_that_was_cut_or_is_gone_is_told_at_once(pack: Path) -> None:
    shard = pack / "train-0001.tar"
    os.truncate(shard, 5000)
    with pytest.raises(DataError, match=r"train-0001\.tar: has 5,000 bytes, and its index says .*: it was cut off or"):
        shards(pack)
    shard.unlink()
    with pytest.raises(
        DataError, match=r"train-0001\.tar: cannot be read \(No such file or directory\), and its index"
    ):
        shards(pack)


def test_an_image_that_was_changed_is_told_by_its_name(pack: Path) -> None:
    images = loaded(shards(pack))
    index = shards(pack).train.source.index  # pyright: ignore[reportAttributeAccessIssue]
    for path in pack.glob("*.tar"):
        content = bytearray(path.read_bytes())
        for at in np.flatnonzero(index.shard == int(path.stem.split("-")[1])):
            content[int(index.offset[at]) + 60] ^= 255
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{images.train.names[0]}: has changed since .* copy or pack it again$"):
        next(images.train.batches(cut(np.arange(4), 4)))


def test_a_shard_that_is_cut_while_it_is_read_is_told(pack: Path) -> None:
    images = loaded(shards(pack))
    for path in pack.glob("*.tar"):
        os.truncate(path, 0)
    with pytest.raises(DataError, match=rf"^train-0000\.tar, {images.train.names[0]}: its shard ends before it"):
        next(images.train.batches(cut(np.arange(4), 4)))


def test_a_damaged_index_is_told(pack: Path) -> None:
    index = pack / "index.arrow"
    content = index.read_bytes()
    index.write_bytes(content[:-200])
    with pytest.raises(DataError, match=r"index\.arrow: cannot be read as an index of shards"):
        shards(pack)
    index.write_bytes(b"")
    with pytest.raises(DataError, match=r"index\.arrow: cannot be read as an index of shards"):
        shards(pack)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"offset": 10**9}, "its records lead out of its shards"),
        ({"offset": -1}, "its records lead out of its shards"),
        ({"label": 2}, "its records lead out of its shards"),
        ({"shard": 9}, "its records lead out of its shards"),
        ({"place": "../root/a/0.tar"}, "leads elsewhere, to ../root/a/0.tar; make it again"),
        ({"place": ".."}, "leads elsewhere, to ..; make it again"),
        ({"place": ""}, "leads elsewhere, to ; make it again"),
        ({"place": "a\0.tar"}, "leads elsewhere, to a\\x00.tar; make it again"),
        ({"place": 5}, "cannot be read as an index of shards (place '5' of one of its TarShards is not a text)"),
        ({"split": ["train"]}, """(split "['train']" of one of its TarShards is not a text)"""),
        ({"bytes": "many"}, "(bytes 'many' of one of its TarShards is not a count)"),
        ({"bytes": 10**30}, "of one of its TarShards is not a count)"),
        ({"format": 2}, "an index of format 2; expected 1"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(pack: Path, change: dict[str, Any], told: str) -> None:
    [(key, value)] = change.items()
    with pa.ipc.open_file(pack / "index.arrow") as reader:
        batch, described = reader.get_batch(0), json.loads(reader.schema.metadata[b"tl_experiments"])
    columns = {name: batch.column(name) for name in batch.schema.names}
    if key in columns:
        columns[key] = pa.array([value] * batch.num_rows, columns[key].type)
    elif key in described["shards"][0]:
        described["shards"][0][key] = value
    else:
        described[key] = value
    schema = batch.schema.with_metadata({b"tl_experiments": json.dumps(described)})
    with pa.ipc.new_file(pack / "index.arrow", schema) as writer:
        writer.write_batch(pa.record_batch(list(columns.values()), schema=schema))
    with pytest.raises(DataError, match=re.escape(told)):
        shards(pack)


class _Handler(SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1:9/a.tar")
            self.end_headers()
        else:
            super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        super().copyfile(io.BytesIO(source.read(6000)) if self._breaks_off else source, outputfile)

    @property
    def _breaks_off(self) -> bool:
        """Whether it promises no length, and ends before the end."""
        return "/breaking/" in self.path and self.path.endswith(".tar")

    def log_message(self, *_: object) -> None: ...

    def end_headers(self) -> None:
        told = {"half": b"Content-Length: 999999", "vague": b"Content-Length: many"}  # more is promised than comes
        if said := b"X-None: 0" if self._breaks_off else told.get(Path(self.path).stem):
            self._headers_buffer = [  # pyright: ignore[reportAttributeAccessIssue]
                re.sub(rb"Content-[Ll]ength: \d+", said, line)
                for line in self._headers_buffer  # pyright: ignore[reportAttributeAccessIssue]
            ]
        super().end_headers()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A server of the files of a test, and the paths that it was asked for."""
    asked: list[str] = []
    handler = type("Handler", (_Handler,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_shards_on_the_net_are_fetched_once(foreign: Path, served: tuple[str, list[str]]) -> None:
    url, asked = served
    near = shards(foreign)
    for _ in range(2):
        far = shards(f"{url}/foreign/photos-{{train-000000,train-000001,val-000000}}.tar")
        assert contents(far.train) == contents(near.train)
        assert loaded(far).fingerprint == loaded(near).fingerprint
    assert sorted(asked) == sorted(f"/foreign/{path.name}" for path in foreign.iterdir())


def test_a_pack_on_the_net_is_found_by_its_folder_and_fetched_when_it_is_read(
    pack: Path, served: tuple[str, list[str]]
) -> None:
    url, asked = served
    notes = Notes()
    far, near = shards(f"{url}/pack/", watch=notes), shards(pack)
    assert notes.titles == [f"fetching {url}/pack/index.arrow"]
    assert re.match(r"shards: 2 on the net, [\d.e-]+ GB in all; those that .* when they are read$", notes.notices[0])
    assert (far.name, far.class_names, asked) == ("pack", ("a", "b"), ["/pack/index.arrow"])
    assert contents(far.train) == contents(near.train)
    assert sorted(asked) == ["/pack/index.arrow", "/pack/train-0000.tar", "/pack/train-0001.tar"]


def test_the_caches_keep_as_much_as_they_may(
    pack: Path, served: tuple[str, list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", str(1.5 * (pack / "train-0000.tar").stat().st_size / 1e9))
    notes = Notes()
    far = shards(f"{served[0]}/pack", watch=notes)
    assert re.search(
        r"may take .* GB: shards are fetched again in every epoch; raise TL_CACHE_LIMIT_GB$", notes.notices[0]
    )
    assert sorted(contents(far.train)) == sorted(contents(shards(pack).train))
    assert len(list(cache.glob("shards/*/shard.tar"))) == 1


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("pack/none-{0..1}.tar", r"/pack/none-[01]\.tar: cannot be fetched \(HTTP 404 File not found\)"),
        ("nowhere", r"/nowhere/index\.arrow: cannot be fetched \(HTTP 404 File not found\)"),
        ("half.tar", r"/half\.tar: came by half \([\d,]+ of 999,999 bytes\); start again"),
        ("vague.tar", r"/vague\.tar: its server says Content-Length: many; expected a number of bytes"),
        ("away/a.tar", r"/away/a\.tar: cannot be fetched \(its server sends for it to ftp://127.*; expected http\)"),
    ],
)
def test_what_does_not_come_is_told_and_not_kept(
    served: tuple[str, list[str]], tmp_path: Path, cache: Path, path: str, told: str
) -> None:
    (tmp_path / "pack").mkdir()
    for name in ("half.tar", "vague.tar"):
        write_shard(tmp_path / name, samples(0, 4))
    with pytest.raises(DataError, match=told):
        shards(f"{served[0]}/{path}")
    assert not [file for file in cache.rglob("*") if file.suffix in (".tar", ".arrow") or "unfinished" in file.name]


def test_a_server_that_is_away_is_told() -> None:
    with pytest.raises(DataError, match=r"^http://127\.0\.0\.1:9/a\.tar: cannot be fetched \(.*refused"):
        shards("http://127.0.0.1:9/a.tar")


def test_what_is_asked_for_in_secret_is_not_fetched_in_public() -> None:
    asked, redirects = Request("https://host/a.tar"), tar_fetch._PlainRedirects()
    for there in ("http://host/a.tar", "HTTP://host/a.tar", "file:///etc/passwd"):
        with pytest.raises(URLError, match="expected https"):
            redirects.redirect_request(asked, io.BytesIO(), 302, "Found", Message(), there)
    assert redirects.redirect_request(asked, io.BytesIO(), 302, "Found", Message(), "https://other/a.tar")


def test_a_fault_without_words_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> IO[bytes]:
        raise ConnectionResetError

    monkeypatch.setattr(tar_fetch._OPENER, "open", refuse)
    with pytest.raises(DataError, match=r"a\.tar: cannot be fetched \(ConnectionResetError\)"):
        shards("http://127.0.0.1:9/a.tar")


def test_a_shard_that_breaks_off_is_not_kept(pack: Path, served: tuple[str, list[str]], cache: Path) -> None:
    breaking = pack.rename(pack.parent / "breaking")
    far = shards(f"{served[0]}/breaking")
    with pytest.raises(
        DataError, match=r"train-000\d\.tar: has 6,000 bytes, and its index says [\d,]+: it was cut off"
    ):
        contents(far.train)
    write_shard(breaking / "foreign.tar", samples(0, 30))
    with pytest.raises(DataError, match=r"foreign\.tar: damaged, cut off"):
        shards(f"{served[0]}/breaking/foreign.tar")
    assert not list(cache.glob("shards/*/shard.tar"))


def test_another_pack_at_the_same_url_is_another_pack(
    pack: Path, make_folder: Callable[..., Path], tmp_path: Path, served: tuple[str, list[str]], cache: Path
) -> None:
    url = f"{served[0]}/pack"
    before = shards(url)
    assert contents(before.train) == contents(shards(pack).train)
    shutil.rmtree(pack)
    packed(make_folder({"a": 90, "c": 90}, tmp_path / "other"), pack, num_shards=2)
    after = shards(url)
    assert after.class_names == ("a", "c")
    assert contents(after.train) == contents(shards(pack).train)
    for kept in cache.glob("shards/*/shard.tar"):
        kept.unlink()
    with pytest.raises(DataError, match=r"has [\d,]+ bytes, and its index says [\d,]+: it was cut off or changed"):
        contents(shards_again(before))


def shards_again(dataset: Dataset) -> Split:
    """Return the training images as a worker gets them, with no file open."""
    return pickle.loads(pickle.dumps(dataset.train))


@pytest.mark.usefixtures("pack")
def test_a_shard_in_the_caches_that_is_not_of_the_index_is_told(served: tuple[str, list[str]], cache: Path) -> None:
    far = shards(f"{served[0]}/pack")
    contents(far.train)
    for kept in cache.glob("shards/*/shard.tar"):
        os.truncate(kept, 5000)
    with pytest.raises(DataError, match=r"has 5,000 bytes in the caches, .* \(tlx cache prune --all\) and start again"):
        contents(shards_again(far))


@pytest.mark.usefixtures("foreign")
def test_what_another_process_makes_room_of_is_fetched_again(
    pack: Path, served: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = set[Path]()

    def stolen(**options: Any) -> Path:
        path = cached_file(**options)
        if path not in removed:
            removed.add(path)
            path.unlink()
        return path

    for module in ("tar_download", "tar_dataset"):
        monkeypatch.setattr(f"tl_experiments.data.{module}.cached_file", stolen)
    near = shards(pack)
    assert contents(shards(f"{served[0]}/pack").train) == contents(near.train)
    assert len(shards(f"{served[0]}/foreign/photos-train-000000.tar").train) > 0
    assert len(removed) == 5  # two indexes, three shards


def test_the_library_is_asked_for_where_it_is_needed(
    foreign: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    assert len(shards(pack).train) > 0
    with pytest.raises(DataError, match=r"^dataset=webdataset needs the library .*'tl_experiments\[webdataset\]'$"):
        shards(foreign / "photos-train-000000.tar")
