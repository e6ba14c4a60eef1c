"""What a stranger could slip in runs nothing, and what a user mistypes is told before anything is touched."""

import json
import logging.config
import os
import pickle
import resource
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from safetensors.torch import save_file

from tests.faults.scorecard import FULL, record
from tl_experiments import build
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.record import read_record
from tl_experiments.models.weights import read_weights
from tl_experiments.runtime.errors import WeightsError
from tl_experiments.sweep.dead import close_what_died
from tl_experiments.sweep.plan import Plan, PlannedJob

ROOT = Path(__file__).parents[2]
SECRET = "tl-hidden-word"


def some(rows: list[Any], *, every: int) -> list[Any]:
    """Return all rows in `scripts/faults`, and a part of them in the ordinary suite."""
    return rows if FULL else rows[::every]


@dataclass(frozen=True)
class Typed:
    """How a command line ended, and what lay in the working directory afterwards that had not been there."""

    code: int
    out: str
    err: str
    made: list[str]


def typed(folder: Path, commands: Sequence[Sequence[str]], *words: str) -> list[Typed]:
    """Type command lines in a folder, one after the other."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SECRET": SECRET}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "many_commands.py"), *words],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [Typed(**ended) for ended in json.loads(done.stdout)]


class Code:
    """A pickle that makes a folder where it is read."""

    def __init__(self, trace: Path | str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


# MARK stands for a folder that exists once the payload has run; TMP for a folder of the attacker.
AT_THE_DOOR = [
    "+hydra.callbacks.x={_target_:os.mkdir,path:MARK}",
    "+hydra.callbacks.x._target_=os.mkdir +hydra.callbacks.x.path=MARK",
    r"+hydra.job_logging.handlers.x={\(\):os.mkdir,path:MARK}",
    "+hydra.hydra_logging.handlers.x={class:os.mkdir,path:MARK}",
    "+hydra.job_logging.formatters.x={format:'ext://os.mkdir'}",
    "+a={_target_:os.mkdir,path:MARK} +hydra.callbacks.x=${a}",
    "+a={_target_:os.mkdir,path:MARK} +hydra.callbacks={x:'${a}'}",
    "hydra.launcher._target_=os.mkdir -m seed=0,1",
    "hydra.sweeper={_target_:os.mkdir,path:MARK} -m seed=0,1",
    "hydra.searchpath=[pkg://antigravity]",
    "experiment=TMP/evil",
    "experiment=../../../../../../../../../..TMP/evil",
    "+tracking@hydra.callbacks.x=none +hydra.callbacks.x.path=MARK",
    "--experimental-rerun=TMP/evil.pickle",
    "--exp TMP/evil.pickle",
    "hydra.output_subdir=../../MARK",
    "hydra.sweep.subdir=../MARK -m seed=0,1",
    "hydra.job.env_set={LD_PRELOAD:MARK}",
    "hydra.job.env_set.PATH=MARK",
]
IN_A_GROUP = [
    "strategy._target_=os.system +strategy.command='mkdir MARK'",
    "strategy._target_=os.mkdir +strategy.path=MARK",
    "tracking._target_=builtins.open +tracking.file=MARK +tracking.mode=w",
    "tracking._target_=tl_experiments.runtime.files.publish_text +tracking.path=MARK +tracking.text=x",
    "strategy._target_=tl_experiments.cli.verbs.main",
    "strategy._target_=tl_experiments.strategies.base.torch.os.mkdir +strategy._args_=[MARK]",
    "strategy._target_=tl_experiments.strategies.base.torch.os.mkdir +strategy.path=MARK",
    "optimizer._target_=torch.optim.adam.torch.hub.os.mkdir +optimizer.path=MARK",
    "optimizer._target_=torch.optim.Optimizer.__init__.__globals__",
    "+dataset.more={_target_:os.mkdir,path:MARK}",
    "+backbone.more=[{a:{_target_:os.mkdir,path:MARK}}]",
    "runtime._target_=os.mkdir",
    "+more={_target_:os.mkdir,path:MARK}",
    "-m seed=0,1 strategy._target_=os.mkdir +strategy.path=MARK",
    "-m strategy._target_=tl_experiments.strategies.base.torch.os.mkdir,tl_experiments.strategies.feature.Feature",
    "tracking.experiment_name=${oc.env:SECRET}",
    "tracking.experiment_name='${oc.decode:${oc.env:SECRET}}'",
    r"tracking.experiment_name=\${oc.env:SECRET}",
    "dataset=image_folder dataset.root=/tmp/${oc.env:SECRET} tracking.experiment_name=${dataset.root}",
    "-m sweep.resume=TMP/targets",
    "-m sweep.resume=TMP/allows",
    "-m sweep.resume=TMP/leads_out",
    "sweep.group=0 hydra.sweep.dir=TMP/targets",
]


@pytest.fixture
def attacker(make_member: Callable[..., Member], tmp_path: Path) -> Path:
    """A folder with a recipe, a pickle and plans of sweeps that a user might be given."""
    folder = tmp_path / "attacker"
    folder.mkdir()
    mark = folder / "ran"
    hydra = {"callbacks": {"x": {"_target_": "os.mkdir", "path": str(mark)}}}
    (folder / "evil.yaml").write_text("# @package _global_\n" + yaml.safe_dump({"hydra": hydra}))
    (folder / "evil.pickle").write_bytes(pickle.dumps(Code(mark)))
    config = make_member("tracking=none").config
    payload = {**config, "strategy": {"_target_": "os.mkdir", "path": str(mark)}}
    plans = {
        "targets": (payload, "0"),
        "allows": ({**payload, "allow_targets": ["os", "posix"]}, "0"),
        "leads_out": (config, "../ran"),
    }
    for name, (values, place) in plans.items():
        job = {"index": 0, "name": "0", "overrides": [], "values": {}, "config": values, "choices": {}, "uid": "u"}
        job |= {"folder": "0", "digest": "d"}
        (folder / name).mkdir()
        whole: Any = {"uid": "u", "name": "n", "created": "c", "overrides": (), "hydra_overrides": (), "code": {}}
        plan = Plan(**whole, settings={"max_heads": 64}, jobs=(PlannedJob(**job),), groups=((0,),))
        fields = {"version": 1, **asdict(plan)}
        fields["jobs"][0]["folder"] = place
        (folder / name / "plan.json").write_text(json.dumps(fields))
    return folder


def armed(payloads: Sequence[str], attacker: Path) -> tuple[list[list[str]], list[Path]]:
    """Return the command lines of payloads, and what each would make."""
    marks = [attacker / f"ran{index}" for index in range(len(payloads))]
    texts = (text.replace("MARK", str(mark)) for text, mark in zip(payloads, marks, strict=True))
    return [split(text.replace("TMP", str(attacker))) for text in texts], marks


def split(text: str) -> list[str]:
    """Part a command line at blanks before a new argument; those inside quotes have none before such."""
    words: list[str] = []
    for word in text.split(" "):
        if words and words[-1].count("'") % 2:
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words


def executed(marks: Sequence[Path]) -> int:
    """How many payloads have run: by their own mark, or the one that several share."""
    return sum(mark.exists() for mark in {*marks, *(mark.with_name("ran") for mark in marks)})


def assert_told(ended: Typed, command: Sequence[str]) -> None:
    assert ended.code == 2, (command, ended)
    assert "Traceback" not in ended.err, (command, ended.err)
    assert 1 <= ended.err.count("error: ") <= 3, (command, ended.err)
    assert SECRET not in ended.out + ended.err or "dataset.root=" in ended.err, (command, ended)


def test_no_command_line_runs_code_that_it_names(attacker: Path, tmp_path: Path) -> None:
    payloads = some([*AT_THE_DOOR, *IN_A_GROUP], every=4)
    desk = tmp_path / "desk"
    desk.mkdir()
    commands, marks = armed(payloads, attacker)
    for command, ended in zip(commands, typed(desk, commands), strict=True):
        assert_told(ended, command)
        assert not list(desk.rglob("mlflow.db"))
    ran = executed(marks)
    record("malicious configs", tried="command lines", payloads=len(payloads), executed=ran)
    assert ran == 0


@pytest.mark.parametrize(
    "payloads",
    [
        [
            "lr=-1 +hydra.callbacks.x={_target_:os.mkdir,path:MARK}",
            "lr=-1 +a={_target_:os.mkdir,path:MARK} +hydra.callbacks.x=${a}",
            "lr=-1 experiment=../../../../../../../../../../..TMP/evil",
        ],
        ["--experimental-rerun=TMP/evil.pickle"],  # whose mark is that of the recipe
    ],
)
def test_without_the_door_hydra_would_run_it(payloads: list[str], attacker: Path, tmp_path: Path) -> None:
    commands, marks = armed(payloads, attacker)
    typed(tmp_path, commands, "unprotected")
    assert executed(marks) == len(payloads)


RECORDS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "object": lambda _, mark: f"lr: !!python/object/apply:os.mkdir ['{mark}']",
    "name": lambda _, mark: f"lr: !!python/name:os.mkdir\nx: {mark}",
    "new": lambda _, mark: f"!!python/object/new:os.mkdir ['{mark}']",
    "target": lambda config, mark: {**config, "strategy": {"_target_": "os.mkdir", "path": mark}},
    "allows itself": lambda config, mark: {
        **config,
        "allow_targets": ["os.", "posix."],
        "strategy": {"_target_": "os.mkdir", "path": mark},
    },
    "open": lambda config, mark: {**config, "tracking": {"_target_": "builtins.open", "file": mark, "mode": "w"}},
    "ours": lambda config, mark: {
        **config,
        "tracking": {"_target_": "tl_experiments.runtime.files.publish_text", "path": mark, "text": "x"},
    },
    "alias": lambda config, _: {
        **config,
        "strategy": {**config["strategy"], "_target_": "tl_experiments.strategies.base.torch.os.mkdir"},
    },
    "alias in torch": lambda config, _: {
        **config,
        "optimizer": {**config["optimizer"], "_target_": "torch.optim.adam.torch.hub.load"},
    },
    "arguments": lambda config, mark: {**config, "strategy": {**config["strategy"], "_args_": [mark]}},
    "deep": lambda config, mark: {
        **config,
        "augmentation": {**config["augmentation"], "scale": [{"_target_": "os.mkdir", "path": mark}, 1.0]},
    },
    "logging": lambda config, mark: {
        **config,
        "hydra": {"job_logging": {"version": 1, "handlers": {"x": {"()": "os.mkdir", "path": mark}}}},
    },
    "environment": lambda config, _: {**config, "tracking": {**config["tracking"], "uri": "${oc.env:SECRET}"}},
    "laughs": lambda _, __: "a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
        f"{new}: &{new} [*{old},*{old},*{old},*{old},*{old},*{old},*{old},*{old}]\n"
        for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
    ),
}  # fmt: skip


def _build_all(path: Path, member: Member) -> None:
    config = read_record(path, allow_targets=[])
    build.check_buildable(Member(config, member.choices, member.folder, "x", "u"))


def test_no_record_of_a_run_runs_code_that_it_names(
    make_member: Callable[..., Member], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    member = make_member("tracking=mlflow")
    marks = []
    for index, (name, make) in enumerate(RECORDS.items()):
        mark, path = tmp_path / f"ran{index}", tmp_path / f"{index}.yaml"
        marks.append(mark)
        made = make(member.config, str(mark))
        path.write_text(made if isinstance(made, str) else yaml.safe_dump(made))
        with pytest.raises(ConfigError) as caught:
            _build_all(path, member)
        assert all(line.isprintable() and SECRET not in line for line in str(caught.value).splitlines()), name
        assert "alias" in name or str(caught.value).startswith(f"{path}: "), name
    record("malicious configs", tried="config.yaml of a run", payloads=len(RECORDS), executed=executed(marks))
    assert executed(marks) == 0


def test_the_payloads_would_run_where_nothing_refuses_them(tmp_path: Path) -> None:
    def mark(number: int) -> str:
        return str(tmp_path / f"ran{number}")

    instantiate({"_target_": "os.mkdir", "path": mark(0)})
    instantiate({"_target_": "builtins.open", "file": mark(1), "mode": "w"}).close()
    instantiate({"_target_": "tl_experiments.strategies.base.torch.os.mkdir", "_args_": [mark(2)]})
    with pytest.raises(ValueError):
        logging.config.dictConfig(
            {"version": 1, "incremental": False, "disable_existing_loggers": False}
            | {"handlers": {"x": {"()": "os.mkdir", "path": mark(3)}}}
        )
    yaml.unsafe_load(f"!!python/object/apply:os.mkdir ['{mark(4)}']")
    pickle.loads(pickle.dumps(Code(mark(5))))
    assert all(Path(mark(number)).exists() for number in range(6))


@pytest.mark.parametrize("file", ["run.json", "plan.json", "parent.json", "result.json", "tracking.jsonl", None])
def test_what_lies_beside_a_run_that_starts_runs_no_code_and_ends_nothing(
    file: str | None,
    attacker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, mark = tmp_path / "outputs" / "sweeps" / "given", attacker / "ran"
    folder.parent.mkdir(parents=True)
    (attacker / "allows").rename(folder)
    path = folder / "plan.json"
    plan = json.loads(path.read_text())
    monkeypatch.syspath_prepend(attacker)  # as the working directory is, for `python -m`
    (attacker / "given_tracker.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Tracker: ...\n")
    plan["jobs"][0]["config"] |= {"tracking": {"_target_": "given_tracker.Tracker"}, "allow_targets": ["given_tracker"]}
    path.write_text(json.dumps(plan))
    (folder / "ledger.jsonl").write_text('{"job": 0, "state": "RUNNING"}\n')
    if file is not None:
        for text in ("", "[]", "[" * 200_000, "\0", '{"format": 1, "version": 1}'):
            (folder / file).write_text(text)
            close_what_died(tmp_path / "outputs" / "runs" / "new")
        (folder / file).unlink()
        os.mkfifo(folder / file)
    close_what_died(tmp_path / "outputs" / "runs" / "new")
    told = capsys.readouterr().out
    assert file not in ("run.json", "plan.json") or f"note: {folder} was left as it is: " in told
    assert file in ("run.json", "plan.json") or f"note: sweep {folder} died" in told
    record(f"plan beside a run that starts, {file or 'whole'}", payloads=1, executed=executed([mark]))
    assert executed([mark]) == 0


TYPOS = [
    ("lrr=1", "lrr: no such key; did you mean lr?"),
    ("epoch=3", "epoch: no such key; did you mean epochs?"),
    ("batchsize=3", "batchsize: no such key; did you mean batch_size?"),
    ("sed=3", "sed: no such key; did you mean seed?"),
    ("+lrr=3", "lrr: no such key; did you mean lr?"),
    ("++sede=3", "sede: no such key; did you mean seed?"),
    ("strateg=feature", "strateg: no such key; did you mean strategy?"),
    ("optimiser=sgd", "optimiser: no such "),
    ("Backbone=resnet18", "Backbone: no such "),
    ("strategy=finetun", "strategy=finetun: no such option; expected one of feature, finetune, partial; did you mean"),
    ("tracking=mlfow", "tracking=mlfow: no such option"),
    ("experiment=cifar10_resnet1", "experiment=cifar10_resnet1: no such option"),
    ("hydra/launcher=isolatd", "hydra/launcher=isolatd: no such option"),
    ("hydra.run.dirr=x", "hydra.run.dirr: no such key"),
    ("optimizer.momentumm=1", "optimizer.momentumm: no such key; did you mean optimizer.momentum?"),
    ("optimizer.momentum=0.9", "optimizer.momentum: the chosen optimizer has no such key; it belongs to optimizer="),
    ("runtime.divice=cpu", "runtime.divice: no such key; did you mean runtime.device?"),
    ("sweep.n_job=2", "sweep.n_job: no such key; did you mean sweep.n_jobs?"),
    ("strategy.batchnorm=evl", "strategy.batchnorm: Invalid value 'evl', expected one of [eval, train]"),
    ("runtime.train_precision=bf17", "runtime.train_precision: Invalid value 'bf17'"),
    ("sweep.on_error=contnue", "sweep.on_error: Invalid value 'contnue'"),
    ("dataset=image_folder", "dataset.root is missing"),
    ("lr", "Error parsing override 'lr'"),
    ("-m seed=0,1 epochss=2", "epochss: no such key; did you mean epochs?"),
    ("-m strategy=feature,finetun", "job 1 finetun: strategy=finetun: no such option"),
    ("-m optimizer.momentumm=1,2", "optimizer.momentumm: no such key"),
    ("-m strategy.batchnorm=eval,trian", "job 1 strategy.batchnorm=trian: strategy.batchnorm: Invalid value 'trian'"),
    ("-m sweep.resum=latest", "sweep.resum: no such key; did you mean sweep.resume?"),
]  # fmt: skip
BAD_VALUES = [
    "lr=-1", "lr=0", "lr=nan", "lr=inf", "lr=abc", "lr=null", "lr=1" + "0" * 400,
    "epochs=0", "epochs=1.5", "epochs=1000000000", "epochs=true",
    "batch_size=0", "batch_size=-1", "batch_size=1000000", "seed=-1", "seed=1180591620717411303424", "seed=x",
    "backbone.image_size=0", "backbone.image_size=100000", "backbone.weights=/nowhere/mine.pth",
    "dataset.val_fraction=1.5", "dataset.val_fraction=0", "dataset.val_fraction=nan", "dataset.train_size=0",
    "dataset.train_size=1.5", "dataset.train_size=all", "dataset.split_seed=18446744073709551616",
    "dataset.image_size=0", "dataset.crop_pct=1.1",
    "runtime.workers=-1", "runtime.workers=100000", "runtime.threads=0", "runtime.threads=1000000",
    "runtime.log_every_steps=0", "runtime.device=gpu", "runtime.device=cuda:-1", "runtime.infer_precision=fp8",
    "runtime.image_memory_gb=-1", "runtime.image_memory_gb=nan", "runtime.infer_batch_size=0",
    "optimizer.betas=[1,1]", "optimizer.betas=[0.9]", "optimizer.betas=0.9", "optimizer.eps=0",
    "optimizer.weight_decay=-1", "optimizer.lr=0.5",
    "augmentation.hflip_prob=2", "augmentation.scale=[2,1]", "augmentation.scale=[0.1]", "augmentation.ratio=[1,inf]",
    "augmentation.rotation_degrees=-5", "scheduler.warmup_epochs=-1", "scheduler.warmup_epochs=10",
    "scheduler.min_lr_fraction=nan", "strategy.views=0", "tracking.experiment_name=''",
    "optimizer=sgd optimizer.momentum=1", "optimizer=rmsprop optimizer.alpha=1", "scheduler=step scheduler.step_size=0",
    "scheduler=step scheduler.gamma=0", "scheduler=onecycle scheduler.pct_start=1",
    "scheduler=onecycle scheduler.div_factor=inf", "scheduler=plateau scheduler.patience=-1",
    "strategy=partial strategy.num_stages=0", "strategy=finetune strategy.backbone_lr_scale=0",
    "strategy=finetune batch_size=1", "dataset=image_folder dataset.root=/nowhere",
    "tracking.uri=sqlite:////dev/null/m.db", "augmentation.scale=[{a:b},1]",
    "-m sweep.n_jobs=0 seed=0,1", "-m sweep.timeout=0 seed=0,1", "-m sweep.timeout=nan seed=0,1",
    "-m sweep.max_heads=0 seed=0,1", "-m lr=1e-3,-1", "-m batch_size=32,0",
]  # fmt: skip


def test_typos_are_told_before_anything_is_touched(tmp_path: Path) -> None:
    rows = some(TYPOS, every=5)
    commands = [split(text) for text, _ in rows]
    caught = 0
    for command, (_, told), ended in zip(commands, rows, typed(tmp_path, commands), strict=True):
        assert_told(ended, command)
        assert ended.err.startswith(f"error: {told}"), (command, ended.err)
        assert ended.made == [], (command, ended.made)
        caught += 1
    record("typos", typed=len(rows), caught=caught, files_made=len(list(tmp_path.iterdir())))
    assert list(tmp_path.iterdir()) == []


def test_bad_values_are_told_before_anything_is_touched(tmp_path: Path) -> None:
    commands = [split(text) for text in some(BAD_VALUES, every=8)]
    caught = 0
    for command, ended in zip(commands, typed(tmp_path, commands), strict=True):
        assert_told(ended, command)
        bad = next(word for word in reversed(command) if not word.startswith(("-", "seed=0,1")))
        key = bad.partition("=")[0]
        assert f"{key}=" in ended.err or f"error: {key}: " in ended.err, (command, ended.err)
        assert ended.made == [], (command, ended.made)
        caught += 1
    record("bad values", typed=len(commands), caught=caught, files_made=len(list(tmp_path.iterdir())))
    assert list(tmp_path.iterdir()) == []


Tamper = Callable[[Path, Path], Path]  # folder, what the payload would make -> file


def _saved(name: str, content: Callable[[Path], Any], **options: Any) -> Tamper:
    def save(folder: Path, mark: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kinds of tensors that PyTorch is about to drop
            torch.save(content(mark), folder / name, **options)
        return folder / name

    return save


def _rewritten(name: str, change: Callable[[str, bytes], bytes], *, compression: int = zipfile.ZIP_STORED) -> Tamper:
    """A checkpoint whose members were changed one by one."""

    def rewrite(folder: Path, _: Path) -> Path:
        torch.save({"a": torch.zeros(1000)}, folder / "honest.pth")
        with zipfile.ZipFile(folder / "honest.pth") as old, zipfile.ZipFile(folder / name, "w", compression) as new:
            for member in old.infolist():
                new.writestr(member.filename, change(member.filename, old.read(member)))
        return folder / name

    return rewrite


def _bytes(name: str, content: Callable[[Path], bytes]) -> Tamper:
    def write(folder: Path, mark: Path) -> Path:
        (folder / name).write_bytes(content(mark))
        return folder / name

    return write


def _header(text: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def _truncated(folder: Path, _: Path) -> Path:
    save_file({"a": torch.zeros(1000)}, folder / "half.safetensors")
    content = (folder / "half.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(content[: len(content) // 2])
    return folder / "half.safetensors"


HUGE = 300 << 20
BEYOND = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
OVERFLOW = json.dumps({"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]}}).encode()
TAMPERED: dict[str, Tamper] = {
    "pickle in a .pth": _saved("a.pth", lambda mark: {"state_dict": {"a": Code(mark)}}),
    "pickle in an old .pth": _saved("a.pth", lambda mark: {"a": Code(mark)}, _use_new_zipfile_serialization=False),
    "bare pickle": _bytes("a.pth", lambda mark: pickle.dumps(Code(mark))),
    "pickle as .safetensors": _bytes("a.safetensors", lambda mark: pickle.dumps(Code(mark))),
    "checkpoint as .safetensors": _saved("a.safetensors", lambda mark: {"a": Code(mark)}),
    "whole module": _saved("a.pth", lambda _: torch.nn.Linear(2, 2)),
    "zip bomb": _rewritten(
        "a.pth", lambda name, data: bytes(HUGE) if name.endswith("data/0") else data, compression=zipfile.ZIP_DEFLATED
    ),
    "zip bomb of a pickle": _rewritten(
        "a.pth", lambda name, data: bytes(HUGE) if name.endswith(".pkl") else data, compression=zipfile.ZIP_DEFLATED
    ),
    "shorter than it says": _rewritten("a.pth", lambda name, data: data[:16] if name.endswith("data/0") else data),
    "more numbers than it has": _rewritten("a.pth", lambda _, data: data.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f")),
    "sparse": _saved("a.pth", lambda _: {"a": torch.eye(4).to_sparse()}),
    "quantized": _saved("a.pth", lambda _: {"a": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)}),
    "nested": _saved("a.pth", lambda _: {"a": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])}),
    "without numbers": _saved("a.pth", lambda _: {"a": torch.zeros(4, device="meta")}),
    "header of 2^62": _bytes("a.safetensors", lambda _: _header(b"{}", length=2**62)),
    "header of 90 MB": _bytes("a.safetensors", lambda _: _header(b"{", length=90_000_000)),
    "numbers beyond the file": _bytes("a.safetensors", lambda _: _header(BEYOND)),
    "shape that overflows": _bytes("a.safetensors", lambda _: _header(OVERFLOW)),
    "deep header": _bytes("a.safetensors", lambda _: _header(b"[" * 100_000)),
    "half a file": _truncated,
}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_file_of_weights_runs_code_or_fills_memory(tmp_path: Path) -> None:
    read_weights(_saved("honest.pth", lambda _: {"a": torch.zeros(4)})(tmp_path, tmp_path))
    marks, files = [], {}
    for index, (name, tamper) in enumerate(TAMPERED.items()):
        folder = tmp_path / str(index)
        folder.mkdir()
        marks.append(tmp_path / f"ran{index}")
        files[name] = tamper(folder, marks[-1])
    before = peak_mb()
    for name, path in files.items():
        with pytest.raises(WeightsError) as caught:
            read_weights(path)
        line = str(caught.value)
        assert line.startswith(f"backbone.weights={path}: "), name
        assert line.isprintable(), name
    grown, ran = peak_mb() - before, executed(marks)
    record("tampered checkpoints", files=len(TAMPERED), refused=len(files), executed=ran, peak_mb=round(grown))
    assert ran == 0
    assert grown < HUGE / 2**20 / 3


def test_the_tampered_files_would_run_code_and_fill_memory(tmp_path: Path) -> None:
    path = TAMPERED["pickle in a .pth"](tmp_path, tmp_path / "ran")
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()
    path = TAMPERED["zip bomb"](tmp_path, tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert sum(member.file_size for member in archive.infolist()) > 100 * path.stat().st_size
