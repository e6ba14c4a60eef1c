"""What faults befall: writers of everything that is published, each with a reader and a naive twin. No torch.

As a program it forks a writer for each request on the socket whose number it is given. A writer waits to be let go,
so that it can be traced from its first call on.
"""

import hashlib
import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tl_experiments.runtime.cache_entries import leftovers, manifests, touch
from tl_experiments.runtime.files import (
    DamageError,
    disk_fault,
    publish_text,
    published_folder,
    remove_folder,
    verify_folder,
)
from tl_experiments.runtime.fingerprint import fingerprint
from tl_experiments.runtime.shard import Shard, write_shard
from tl_experiments.sweep.ledger import FILE, Ledger

STATE_BYTES, ROW_BYTES, ROWS, CAUSE_BYTES = 200_000, 4_000, 5, 5_000
IDENTITY = {"fields": {}, "row_bytes": ROW_BYTES}
Write = Callable[[Path, int], None]


@dataclass(frozen=True)
class Writer:
    """A way to save number 1, 2, 3, ... in a folder.

    Attributes:
        write: as the program does.
        naive: as it is done where nobody thinks of faults.
        newest: returns the number of the newest save, 0 for none, when all that can be seen is whole; else raises.
        leftovers: what no reader looks at.
    """

    write: Write
    naive: Write
    newest: Callable[[Path], int]
    leftovers: Callable[[Path], list[str]]


def content(number: int, size: int) -> bytes:
    return hashlib.shake_256(str(number).encode()).digest(size)


def _fill(folder: Path, number: int) -> None:
    (folder / "state.safetensors").write_bytes(content(number, STATE_BYTES))
    (folder / "optimizer.safetensors").write_bytes(content(-number, STATE_BYTES))
    (folder / "state.json").write_text(json.dumps({"number": number}))


def _filled(folder: Path) -> int:
    """Return the number of a folder whose three files belong together."""
    verify_folder(folder)
    number = json.loads((folder / "state.json").read_bytes())["number"]
    for name, sign in (("state", 1), ("optimizer", -1)):
        if (folder / f"{name}.safetensors").read_bytes() != content(sign * number, STATE_BYTES):
            raise DamageError(f"{name} is of another save")
    return number


def _hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".unfinished")]


def _save_checkpoint(folder: Path, number: int) -> None:
    with published_folder(folder / f"step-{number}") as making:
        _fill(making, number)
    remove_folder(folder / f"step-{number - 2}")


def _save_checkpoint_naively(folder: Path, number: int) -> None:
    step = folder / f"step-{number}"
    step.mkdir()
    files = {}
    _fill(step, number)
    for path in step.iterdir():
        whole = path.read_bytes()
        files[path.name] = {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    (step / "manifest.json").write_text(json.dumps({"files": files}))
    shutil.rmtree(folder / f"step-{number - 2}", ignore_errors=True)


def _newest_checkpoint(folder: Path) -> int:
    steps = [path for path in folder.iterdir() if path.name.startswith("step-")]
    return max((_filled(step) for step in steps), default=0)


def _save_export(folder: Path, number: int) -> None:
    with published_folder(folder / "model") as making:
        _fill(making, number)


def _save_export_naively(folder: Path, number: int) -> None:
    shutil.rmtree(folder / "model", ignore_errors=True)
    _save_checkpoint_naively(folder, number)
    (folder / f"step-{number}").rename(folder / "model")


def _newest_export(folder: Path) -> int:
    return _filled(folder / "model") if (folder / "model").exists() else 0


def _entry(folder: Path) -> Path:
    return folder / "features" / fingerprint(IDENTITY)


def _rows(number: int) -> tuple[list[memoryview], list[str]]:
    rows = [memoryview(content(number * ROWS + index, ROW_BYTES)) for index in range(ROWS)]
    return rows, [f"{number}-{index}" for index in range(ROWS)]


def _save_rows(folder: Path, number: int) -> None:
    entry = _entry(folder)
    entry.mkdir(parents=True, exist_ok=True)
    touch(entry, json.dumps(IDENTITY).encode())
    rows, digests = _rows(number)
    write_shard(entry, rows, digests, row_bytes=ROW_BYTES)


def _save_rows_naively(folder: Path, number: int) -> None:
    """The manifest comes first, so that its name is at hand."""
    entry = _entry(folder)
    entry.mkdir(parents=True, exist_ok=True)
    rows, digests = _rows(number)
    hashes = [hashlib.sha256(row).hexdigest() for row in rows]
    body = {"key": entry.name, "row_bytes": ROW_BYTES, "digests": digests, "sha256": hashes}
    text = json.dumps(body).encode()
    manifest = entry / f"{hashlib.sha256(text).hexdigest()}.json"
    manifest.write_bytes(text)
    manifest.with_suffix(".rows").write_bytes(b"".join(rows))


def _newest_rows(folder: Path) -> int:
    numbers = set()
    for manifest in manifests(_entry(folder)):
        shard = Shard.load(manifest)
        number = int(shard.digests[0].partition("-")[0])
        if [row for _, row in shard.read(range(ROWS))] != _rows(number)[0]:
            raise DamageError("a row is not as it was written")
        numbers.add(number)
    return _last_of(numbers)


def _append(folder: Path, number: int) -> None:
    Ledger(folder).append({"job": number, "state": "RUNNING", "cause": content(number, CAUSE_BYTES).hex()})


def _append_naively(folder: Path, number: int) -> None:
    """The file is read and written over, as a JSON document would be."""
    path = folder / FILE
    text = path.read_text() if path.exists() else ""
    path.write_text(text + json.dumps({"job": number, "cause": content(number, CAUSE_BYTES).hex()}) + "\n")


def _newest_line(folder: Path) -> int:
    last = Ledger(folder).last()
    if any(entry["cause"] != content(number, CAUSE_BYTES).hex() for number, entry in last.items()):
        raise DamageError("a line is not as it was written")
    return _last_of(set(last))


def _last_of(numbers: set[int]) -> int:
    if numbers != set(range(1, len(numbers) + 1)):
        raise DamageError(f"of what was saved there is only {sorted(numbers)}")
    return len(numbers)


def _result(number: int) -> str:
    return json.dumps({"number": number, "weights_sha256": content(number, 10_000).hex()})


def _newest_result(folder: Path) -> int:
    if not (folder / "result.json").exists():
        return 0
    text = (folder / "result.json").read_text()
    number = json.loads(text)["number"]
    if text != _result(number):
        raise DamageError("it is not as it was written")
    return number


WRITERS = {
    "checkpoint": Writer(_save_checkpoint, _save_checkpoint_naively, _newest_checkpoint, _hidden),
    "export": Writer(_save_export, _save_export_naively, _newest_export, _hidden),
    "cache": Writer(_save_rows, _save_rows_naively, _newest_rows, lambda f: [p.name for p in leftovers(_entry(f))]),
    "ledger": Writer(_append, _append_naively, _newest_line, _hidden),
    "result": Writer(
        lambda folder, number: publish_text(folder / "result.json", _result(number)),
        lambda folder, number: (folder / "result.json").write_text(_result(number)) and None,
        _newest_result,
        _hidden,
    ),
}


def _without_fsync() -> None:
    os.fsync = lambda _: None


def _without_fsync_of_folders() -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            real(descriptor)

    os.fsync = fsync


CARELESS = {"no fsync": _without_fsync, "no fsync of folders": _without_fsync_of_folders}


def _write_when_told(control: socket.socket, request: dict) -> None:
    """Write the numbers that come, one by one, and answer each with what became of it."""
    writer = WRITERS[request["writer"]]
    CARELESS.get(request["care"], lambda: None)()
    write = writer.naive if request["care"] == "naive" else writer.write
    while number := json.loads(control.recv(100)):
        try:
            write(Path(request["folder"]), number)
            error = ""
        except OSError as refused:
            error = disk_fault(refused)
        control.send(json.dumps({"saved": number, "error": error}).encode())


def _serve(control: socket.socket) -> None:
    while request := control.recv(10_000):
        child = os.fork()
        if child == 0:
            control.send(json.dumps({"pid": os.getpid()}).encode())
            _write_when_told(control, json.loads(request))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        control.send(json.dumps({"code": code}).encode())


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
