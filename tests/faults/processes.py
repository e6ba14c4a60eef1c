"""The real program, run hundreds of times: every run is a process of its own, forked from one that has imported.

The process dies, or signals its group, at a place of its story that a test names: `Strike`. As a program this file is
the server of forks, one for all processes of pytest; it listens on the socket whose name it is given, and ends when
nobody is connected any more.
"""

import atexit
import functools
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import util
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Ended, take_signals

ROOT = Path(__file__).parent.parent.parent
PATHS = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "sweep")))  # of the program, and of code that goes wrong
LIMIT_SECONDS = 120
MOST_BYTES = 60_000  # of a request
STEPS = "steps"  # the file, where a run is typed, that gets a line for every step: process, epoch, step


@dataclass(frozen=True)
class Strike:
    """A signal that a process sends when it comes to a place.

    Attributes:
        place: `train EPOCH STEP`, `val EPOCH STEP` or `test EPOCH STEP`, a step that is done; `epoch N`, which is over
            and not yet recorded; `save N`, a checkpoint that is about to be written; `reading N`, `checking N`,
            `decoding N` or `extracting N`, work that has reported N times; `fork N`, a worker that was just started;
            `begin`, before anything is imported or composed; any of them followed by ` sync N`, the Nth force to the
            disk after it.
        number: of the signal.
        delay: seconds from there on.
        whom: `group`, of the process; `process`, it alone; `sweep`, that it is a job of.
    """

    place: str
    number: int = signal.SIGKILL
    delay: float = 0.0
    whom: str = "group"


@dataclass
class Program:
    """A run of the program."""

    pid: int
    log: Path
    errors: Path
    server: "Server" = field(repr=False)
    start: float = field(default_factory=time.monotonic)
    code: int | None = None

    @property
    def ended(self) -> bool:
        if self.code is None:
            self.code = self.server.request({"poll": self.pid})["code"]
        return self.code is not None

    def wait(self, *, limit_seconds: float = LIMIT_SECONDS) -> int:
        """Return the exit code; a signal's is negative. What takes too long is killed."""
        with suppress(ProcessLookupError):  # it has ended, and perhaps been asked for
            handle = os.pidfd_open(self.pid)
            ready, _, _ = select.select([handle], [], [], limit_seconds)
            os.close(handle)
            if not ready:
                self.signal(signal.SIGABRT)
        while not self.ended:
            time.sleep(0.001)
        assert self.code is not None
        return self.code

    def end(self, *, limit_seconds: float = LIMIT_SECONDS) -> Ended:
        """Wait for the end, and return how it was; for programs with `logs`, else there are no errors apart."""
        code = self.wait(limit_seconds=limit_seconds)
        return Ended(code, self.output, self.errors.read_text(errors="replace"))

    def signal(self, number: int, *, alone: bool = False) -> None:
        """Send a signal to the process and all that it started."""
        with suppress(ProcessLookupError):
            (os.kill if alone else os.killpg)(self.pid, number)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def struck(self) -> float | None:
        """When the strike fell, in seconds of the monotonic clock; None where it did not."""
        path = self.log.with_suffix(".struck")
        return float(path.read_text()) if path.exists() else None


class Server:
    """The process that forks, as seen from one that asks it to."""

    def __init__(self) -> None:
        self._control = _connected(f"tl_forks_{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}")
        self._count = 0
        self._lock = threading.Lock()

    def start(
        self,
        *arguments: str,
        cwd: Path,
        strike: Strike | None = None,
        environment: Mapping[str, str] | None = None,
        logs: Path | None = None,
        program: str = "run.py",
    ) -> Program:
        """Type `python PROGRAM ARGUMENTS`, or `tlx ARGUMENTS`, in a folder.

        Args:
            arguments: of the program.
            cwd: where it is typed.
            strike: that befalls it.
            environment: variables beside this process's own.
            logs: folder for what it says, its output and its errors apart; None is one file of both in `cwd`.
            program: run.py, tlx, the path of another, or a module's name.
        """
        with self._lock:
            self._count += 1
            log = (logs or cwd) / f"typed-{self._count}.log"
        errors = log.with_suffix(".errors") if logs else log
        variables = {**os.environ, "PYTHONPATH": PATHS, **(environment or {})}
        request = {
            "program": program,
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": variables,
            "log": str(log),
            "errors": str(errors),
            "strike": None if strike is None else asdict(strike),
        }
        return Program(self.request(request)["pid"], log, errors, self)

    def close(self) -> None:
        self._control.close()

    def request(self, request: object) -> dict[str, Any]:
        with self._lock:
            self._control.send(json.dumps(request).encode())
            return json.loads(self._control.recv(MOST_BYTES))


def _connected(name: str) -> socket.socket:
    """Connect to the server of a name, which is started where there is none; of several the first alone listens."""
    started: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with suppress(OSError):
            control.connect(f"\0{name}")
            control.send(json.dumps({"poll": None}).encode())
            if control.recv(MOST_BYTES):  # else it was about to end
                return control
        control.close()
        if started is None or started.poll() is not None:
            program = [sys.executable, "-m", "tests.faults.processes", name]
            environment = os.environ | {"PYTHONPATH": PATHS}
            started = subprocess.Popen(program, cwd=ROOT, env=environment, preexec_fn=take_signals)
        time.sleep(0.05)
    raise TimeoutError(f"the server of forks does not answer within {LIMIT_SECONDS} s")


@functools.cache
def server() -> Server:
    """The one server."""
    started = Server()
    atexit.register(started.close)
    return started


@contextmanager
def two_at_a_time(
    work: Callable[..., Any], request: pytest.FixtureRequest, *, first: Sequence[Callable[[], Any]] = ()
) -> Iterator[dict[str, Future[Any]]]:
    """Do the work of all tests of a module that ask for it, by their ids, before they do; two at a time.

    Args:
        work: given a test's parameters.
        request: of a fixture with the scope of the module.
        first: what others are going to need.
    """
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    name = request.fixturename
    asking = [test.callspec for test in tests if test.module is request.module and name in test.fixturenames]
    with ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(needed) for needed in first]
        for future in ahead:
            future.result()
        yield {call.id: pool.submit(work, **call.params) for call in asking}
        pool.shutdown(cancel_futures=True)


def processes_of(group: int) -> list[int]:
    """Return the living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                found.append(int(path.parent.name))
    return found


def _serve(listening: socket.socket) -> None:
    """Fork a process for each request; returns in such a process, which is the program from then on."""
    clients: list[socket.socket] = []
    while True:
        for ready in select.select([listening, *clients], [], [])[0]:
            if ready is listening:
                clients.append(listening.accept()[0])
            elif content := _received(ready):
                request = json.loads(content)
                child = os.fork() if "program" in request else None
                if child == 0:
                    for descriptor in (listening, *clients):
                        descriptor.close()
                    _become(request)
                    return
                with suppress(OSError):  # of a client that has died
                    ready.send(json.dumps(_code_of(request["poll"]) if child is None else _led(child)).encode())
            else:
                clients.remove(ready)
                ready.close()
                if not clients:
                    return


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(MOST_BYTES)
    except OSError:  # it has died
        return b""


def _code_of(pid: int | None) -> dict[str, int | None]:
    """Return the exit code of a child that has ended."""
    ended, status = (0, 0) if pid is None else os.waitpid(pid, os.WNOHANG)
    return {"code": os.waitstatus_to_exitcode(status) if ended else None}


def _led(child: int) -> dict[str, int]:
    """Return the number of a child that leads a group of its own."""
    with suppress(OSError):  # it has done so itself
        os.setpgid(child, child)
    return {"pid": child}


def _become(request: Mapping[str, Any]) -> None:
    """Be `python run.py`, `tlx`, or another program or module."""
    with suppress(OSError):
        os.setpgid(0, 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    paths = map(os.path.abspath, os.environ["PYTHONPATH"].split(os.pathsep))
    sys.path[:0] = [path for path in paths if path not in sys.path]
    time.tzset()
    appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for descriptor, (name, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (request["log"], appended), (request["errors"], appended))
    ):
        opened = os.open(name, flags, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    util.spawnv_passfds = functools.partial(_fork_in_place_of_spawn, util.spawnv_passfds)  # type: ignore[attr-defined]
    story = Story(request["log"], Strike(**request["strike"]) if request["strike"] else None)
    story.listen()
    story.at("begin")
    sys.argv = [request["program"], *request["arguments"]]
    try:
        if request["program"].endswith(".py"):
            runpy.run_path(str(ROOT / request["program"]), run_name="__main__")
        else:
            module = "tl_experiments" if request["program"] == "tlx" else request["program"]
            runpy.run_module(module, run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, int):
            _leave(ended.code)
        raise


def _leave(code: int) -> None:
    """End as Python does, but free no objects: that takes half a second, as it copies all memory that is shared."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _fork_in_place_of_spawn(spawn: Callable[..., int], path: str, args: Sequence[str], descriptors: list[int]) -> int:
    """Let the server of a sweep's jobs be a child as usual, but forked: it has imported already."""
    if "forkserver" not in args[-1]:
        return spawn(path, args, descriptors)
    child = os.fork()
    if child:
        return child
    try:
        first = 3
        for descriptor in (*sorted(descriptors), os.sysconf("SC_OPEN_MAX")):
            os.closerange(first, min(descriptor, 4096))
            first = descriptor + 1
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        exec(args[-1], {})
    finally:
        os._exit(0)


class Story:
    """What the program tells its console while it goes on, and what strikes it there."""

    def __init__(self, log: str, strike: Strike | None) -> None:
        self._strike = strike
        self._struck = Path(log).with_suffix(".struck")
        self._steps = Path(log).parent / STEPS
        self._place, self._syncs = "", 0
        self._saves = self._forks = 0

    def at(self, place: str) -> None:
        """Be at a place."""
        self._place, self._syncs = place, 0
        self._meet(place)

    def _meet(self, place: str) -> None:
        strike = self._strike
        if strike is not None and strike.place == place:
            self._strike = None
            if strike.delay:
                threading.Timer(strike.delay, self._fall, [strike]).start()
            else:
                self._fall(strike)

    def _fall(self, strike: Strike) -> None:
        self._struck.write_text(str(time.monotonic()))
        if strike.whom == "process":
            os.kill(os.getpid(), strike.number)
        else:
            os.killpg(os.getpgid(os.getppid() if strike.whom == "sweep" else 0), strike.number)

    def listen(self) -> None:
        """Listen to everything that makes a place."""
        from tl_experiments.engine import checkpoint
        from tl_experiments.engine.records import EpochRecord, Progress
        from tl_experiments.tracking.console import Console

        record, work, save, sync = Console.record, Console.work, checkpoint.published_folder, os.fsync

        def hear_record(console: Console, told: Any) -> None:
            record(console, told)
            if isinstance(told, EpochRecord):
                self.at(f"epoch {told.epoch}")
            elif isinstance(told, Progress):
                if told.stage == "train":
                    with self._steps.open("a") as file:
                        file.write(f"{os.getpid()} {told.epoch} {told.step}\n")
                self.at(f"{told.stage} {told.epoch} {told.step}")

        def hear_work(console: Console, title: str) -> Callable[[int, int], None]:
            advance, kind = work(console, title), title.partition(" ")[0]
            counts = iter(range(1, 1_000_000))

            def heard(done: int, total: int) -> None:
                advance(done, total)
                self.at(f"{kind} {next(counts)}")

            self.at(f"{kind} 0")
            return heard

        def hear_save(path: Path) -> Any:
            self._saves += 1
            self.at(f"save {self._saves}")
            return save(path)

        def hear_sync(descriptor: int) -> None:
            self._syncs += 1
            self._meet(f"{self._place} sync {self._syncs}")
            sync(descriptor)

        def hear_fork() -> None:
            self._forks += 1
            self._meet(f"fork {self._forks}")

        Console.record, Console.work, checkpoint.published_folder, os.fsync = (
            *(hear_record, hear_work),
            *(hear_save, hear_sync),
        )
        os.register_at_fork(after_in_parent=hear_fork)


@dataclass(frozen=True)
class Truth:
    """What must be the same, bit for bit, however a run came to its end."""

    weights_sha256: str
    summary: tuple[tuple[str, float], ...]
    epochs: tuple[str, ...]
    predictions: str
    frozen_sha256: str

    @classmethod
    def of(cls, folder: Path) -> "Truth":
        """Read a finished run."""
        result = json.loads((folder / "result.json").read_text())
        assert result["status"] == "FINISHED"
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return cls(
            weights_sha256=result["weights_sha256"],
            summary=tuple((key, value) for key, value in result.items() if key.startswith(("val/", "test/"))),
            epochs=tuple(json.dumps({k: v for k, v in row.items() if not k.startswith("perf/")}) for row in rows),
            predictions=(folder / "predictions.csv").read_text(),
            frozen_sha256=result["frozen_sha256"],
        )


def unfinished(folder: Path) -> list[Path]:
    """Return what writers that died have left."""
    return sorted(folder.rglob(".unfinished-*"))


def _make_schema_once(folder: Path) -> None:
    """Have all that is forked from here copy the schema of a store, whose making takes the most of a short run."""
    from tl_experiments.tracking import mlflow_store

    made, maker = folder / "mlflow.db", os.fork()
    if maker == 0:  # what is forked later inherits no connection
        mlflow_store._make_database(made)
        os._exit(0)
    assert os.waitpid(maker, 0)[1] == 0

    @functools.wraps(mlflow_store._make_database)
    def copy(database: Path) -> None:
        unfinished = database.with_name(f".{database.name}.{os.getpid()}")
        shutil.copy(made, unfinished)
        unfinished.replace(database)

    mlflow_store._make_database = copy


if __name__ == "__main__":
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listening.bind(f"\0{sys.argv[1]}")
    except OSError:
        sys.exit()  # another was faster
    listening.listen(64)

    import git  # noqa: F401 - MLflow imports it
    import mlflow.store.tracking.sqlalchemy_workspace_store  # noqa: F401

    import hydra_plugins.tl_experiments_sweep  # noqa: F401
    import tl_experiments.door
    import tl_experiments.sweep.preloaded  # noqa: F401

    schema, serving = Path(tempfile.mkdtemp()), os.getpid()
    _make_schema_once(schema)
    _serve(listening)
    if os.getpid() == serving:
        shutil.rmtree(schema)
