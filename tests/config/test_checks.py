"""Every range takes what lies just inside and names what lies just outside; so do rules across groups and targets."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from tl_experiments.config.checks import check
from tl_experiments.config.compose import CONF
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member, plain
from tl_experiments.config.ranges import RANGES
from tl_experiments.config.register import register
from tl_experiments.config.targets import HOMES, allowed_prefixes

# key -> (values just inside, values just outside)
CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "lr": ([1e-12, 1e6], [0.0, -1e-12, math.inf, math.nan]),
    "epochs": ([1, 1_000_000], [0, -1, 1_000_001]),
    "batch_size": ([1, 65_536], [0, -1, 65_537]),
    "seed": ([0, 2**63 - 1], [-1, 2**63]),
    "accumulate_steps": ([1, 65_536], [0, -1, 65_537]),
    "clip_grad_norm": ([1e-6, 1e6, None], [0.0, -1.0, math.inf]),
    "ema_decay": ([1e-6, 0.99999, None], [0.0, 1.0, -0.1, math.nan]),
    "early_stopping.patience": ([1, 1_000_000, None], [0, -1, 1_000_001]),
    "label_smoothing": ([0.0, 0.999], [-0.01, 1.0, math.nan]),
    "class_weights": (
        [None, "auto", {"0": 2.0, "7": 1}],
        ["balanced", {}, {"0": 0.0}, {"0": -1.0}, {"0": math.inf}, {"0": "x"}, {"0": True}, {"0": None}, [1.0], 2.0],
    ),
    "mixup_alpha": ([0.0, 0.2, 100.0], [-0.1, 100.1, math.nan]),
    "cutmix_alpha": ([0.0, 1.0, 100.0], [-0.1, 100.1, math.nan]),
    "head.dropout": ([0.0, 0.999], [-0.01, 1.0]),
    "head.hidden_dim": ([1, 65_536], [0, 65_537]),
    "head.scale": ([1e-3, 100.0], [0.0, -1.0, math.inf]),
    "backbone.image_size": ([1, 4096, None], [0, 4097]),
    "strategy.views": ([1, 1000, None], [0, -1, 1001]),
    "strategy.num_c": ([1, 1000], [0, 1001]),
    "strategy.min_c": ([1e-9, 1e9], [0.0, -1.0, math.inf]),
    "strategy.max_c": ([1e-9, 1e9], [0.0, -1.0, math.inf]),
    "strategy.num_neighbours": ([[1], [5, 10_000]], [[], [0], [10_001], 5, ["a"]]),
    "strategy.temperature": ([1e-3, 10.0], [0.0, -1.0, math.inf]),
    "strategy.rank": ([1, 4096], [0, 4097]),
    "strategy.alpha": ([1e-3, 64.0], [0.0, -1.0, math.inf]),
    "strategy.dropout": ([0.0, 0.99], [-0.1, 1.0]),
    "strategy.targets": ([["*.qkv"], ["a", "b"], None], [[], [""], [None]]),
    "strategy.layer_decay": ([1e-3, 1.0], [0.0, 1.01, math.nan]),
    "strategy.l2_sp": ([0.0, 10.0], [-1e-9, math.inf]),
    "strategy.probe_epochs": ([1, 1_000_000], [0, 1_000_001]),
    "strategy.probe_lr_scale": ([1e-3, 1e3], [0.0, math.inf]),
    "strategy.every_epochs": ([1, 1_000_000], [0, 1_000_001]),
    "strategy.backbone_lr_scale": ([1e-6, 2.0], [0.0, -0.1, math.inf]),
    "optimizer.weight_decay": ([0.0, 10.0], [-1e-9, math.inf]),
    "optimizer.momentum": ([0.0, 0.999], [-1e-9, 1.0]),
    "optimizer.alpha": ([0.0, 0.999], [-1e-9, 1.0]),
    "optimizer.eps": ([1e-12], [0.0]),
    "optimizer.warmup_steps": ([0, 10**9], [-1, 10**9 + 1]),
    "optimizer.betas": ([[0.0, 0.999]], [[0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.99, 0.999], []]),
    "scheduler.warmup_epochs": ([0.0, 9.9], [-0.1]),
    "scheduler.min_lr_fraction": ([0.0, 1.0], [-0.01, 1.01]),
    "scheduler.step_size": ([1], [0]),
    "scheduler.gamma": ([1e-6, 1.0], [0.0, 1.01]),
    "scheduler.pct_start": ([0.01, 0.99], [0.0, 1.0]),
    "scheduler.div_factor": ([1.0], [0.99, math.inf]),
    "scheduler.final_div_factor": ([1.0], [0.99, math.inf]),
    "scheduler.factor": ([0.01, 0.99], [0.0, 1.0]),
    "scheduler.patience": ([0], [-1]),
    "dataset.train_size": ([1, 500, 0.01, 1.0, None], [0, -5, 0.0, 1.01, -0.5, 500.0]),
    "dataset.val_fraction": ([0.01, 0.99], [0.0, 1.0]),
    "dataset.test_fraction": ([0.01, 0.99], [0.0, 1.0]),
    "dataset.split_seed": ([0, 2**63 - 1], [-1, 2**63]),
    "dataset.shuffle_buffer": ([1, 10**9], [0, 10**9 + 1]),
    "dataset.image_size": ([1, 4096], [0, 4097]),
    "dataset.crop_pct": ([0.01, 1.0], [0.0, 1.01]),
    "augmentation.hflip_prob": ([0.0, 1.0, None], [-0.01, 1.01]),
    "augmentation.rotation_degrees": ([0.0, 180.0], [-1.0, 180.1]),
    "augmentation.erase_prob": ([0.0, 1.0], [-0.01, 1.01]),
    "augmentation.num_ops": ([1, 14], [0, 15]),
    "augmentation.magnitude": ([0, 30], [-1, 31]),
    "augmentation.scale": (
        [[0.01, 1.0], [1.0, 1.0], [0.5, 0.5]],
        [[0.0, 1.0], [0.5, 1.01], [0.6, 0.5], [0.5], [0.1, 0.5, 1.0]],
    ),
    "augmentation.ratio": ([[0.5, 2.0], [1.0, 1.0]], [[0.0, 1.0], [2.0, 0.5], [1.0], [1.0, math.inf]]),
    "strategy.num_stages": ([1, 1000, None], [0, 1001]),
    "strategy.train": ([["layer4.*"], ["a", "b"], None], [[], [""], ["a", " "], [None]]),
    "runtime.device": (
        ["auto", "cpu", "cuda", "cuda:0", "cuda:11"],
        ["gpu", "cuda:", "cuda:x", "cuda:1234", "cpu:0", "mps", ""],
    ),
    "runtime.threads": ([1, 1024, None], [0, 1025]),
    "runtime.workers": ([0, 256], [-1, 257]),
    "runtime.image_memory_gb": ([0.0, 0.5], [-0.1, math.nan, math.inf]),
    "runtime.log_every_steps": ([1], [0]),
    "runtime.rank_timeout": ([0.5, 600.0], [0.0, -1.0]),
    "checkpoint.every_minutes": ([0.01], [0, -1]),
    "runtime.infer_batch_size": ([1, 65_536, None], [0, 65_537]),
    "sweep.n_jobs": ([1, 1024], [0, 1025]),
    "sweep.max_heads": ([1, 65_536], [0, 65_537]),
    "sweep.timeout": ([0.1, 1e8, None], [0, -1.0, 1.1e8, math.inf, math.nan]),
    "tracking.experiment_name": (["x"], ["", " "]),
}
STILL = (
    *("augmentation.hflip_prob=0", "augmentation.rotation_degrees=0"),
    *("augmentation.scale=[1,1]", "augmentation.ratio=[1,1]"),
)
INSIDE = [(key, value) for key, (inside, _) in CASES.items() for value in inside]
OUTSIDE = [(key, value) for key, (_, outside) in CASES.items() for value in outside]


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose("config"))


@pytest.fixture
def config(composed: dict[str, Any]) -> dict[str, Any]:
    """The defaults, to be spoilt."""
    return copy.deepcopy(composed)


@pytest.fixture
def augmented(config: dict[str, Any]) -> dict[str, Any]:
    """As above, with images that are turned, so that views of them differ."""
    return put(config, "augmentation.rotation_degrees", 15.0)


def put(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Give a key of a nested config another value."""
    *groups, leaf = key.split(".")
    node = config
    for group in groups:
        node = node[group]
    node[leaf] = value
    return config


def problems(config: dict[str, Any], folder: Path) -> list[str]:
    try:
        check(config, folder=folder)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_every_range_is_tested_here() -> None:
    assert {key for key, *_ in RANGES} == CASES.keys()


@pytest.mark.parametrize(("key", "value"), INSIDE)
def test_a_value_just_inside_passes(key: str, value: Any, augmented: dict[str, Any], tmp_path: Path) -> None:
    changed = put(augmented, key, value)
    changed["optimizer"]["lr"] = changed["lr"]  # as the interpolation has it
    assert problems(changed, tmp_path) == []


@pytest.mark.parametrize(("key", "value"), OUTSIDE)
def test_a_value_just_outside_is_named_with_what_is_expected(
    key: str, value: Any, augmented: dict[str, Any], tmp_path: Path
) -> None:
    changed = put(augmented, key, value)
    changed["optimizer"]["lr"] = changed["lr"]
    [line] = problems(changed, tmp_path)
    named, _, expected = line.partition(": expected ")
    assert named == f"{key}={value}"
    assert len(expected) > 3


def test_every_problem_is_told_at_once(config: dict[str, Any], tmp_path: Path) -> None:
    put(put(put(config, "epochs", 0), "optimizer.eps", 0.0), "augmentation.scale", [2.0, 1.0])
    assert [line.split("=")[0] for line in problems(config, tmp_path)] == [
        "epochs",
        "optimizer.eps",
        "augmentation.scale",
    ]


def test_a_bad_lr_is_told_once_although_the_optimizer_takes_it_too(make_member: Callable[..., Member]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_member("lr=-1")
    assert str(caught.value) == "lr=-1: expected a number above 0, or auto"


def test_the_rate_is_given_in_one_place(make_member: Callable[..., Member]) -> None:
    with pytest.raises(ConfigError, match=r"^optimizer\.lr=0\.5: it follows lr, .* expected lr=0\.5 instead$"):
        make_member("optimizer.lr=0.5")


@pytest.mark.parametrize(("key", "told"), [("lrr", "did you mean lr?"), ("qqqqqq", "no such key")])
def test_a_key_that_nothing_reads_cannot_be_added(key: str, told: str, make_member: Callable[..., Member]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_member(f"+{key}=1")
    assert str(caught.value).startswith(f"{key}: no such key")
    assert told in str(caught.value)


def test_a_store_that_cannot_be_written_is_told_before_data(make_member: Callable[..., Member], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^tracking\.uri=sqlite:.*/file/m\.db: .*/file cannot be written to"):
        make_member("tracking=mlflow", f"tracking.uri=sqlite:///{tmp_path / 'file' / 'm.db'}")


def test_an_empty_root_is_no_root(make_member: Callable[..., Member]) -> None:
    with pytest.raises(ConfigError, match=r"^dataset\.root is empty"):
        make_member("dataset=image_folder", "dataset.root=")


FREE = ("optimizer=schedulefree_adamw", "scheduler=constant")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["scheduler.warmup_epochs=10"], "scheduler.warmup_epochs=10.0: expected less than epochs=10"),
        (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], "optimizer.nesterov=true"),
        (["batch_size=1", "strategy=scratch"], "batch_size=1: BatchNorm has nothing to normalise by"),
        (
            ["strategy=lp_ft", "strategy.probe_epochs=1", "scheduler.warmup_epochs=5"],
            "scheduler.warmup_epochs=5.0: expected less than strategy.probe_epochs=1",
        ),
        (["batch_size=1", "strategy=finetune"], "batch_size=1: BatchNorm has nothing to normalise by"),
        (
            ["batch_size=2", "accumulate_steps=2", "strategy=finetune"],
            "batch_size=2: the last step of an epoch may have",
        ),
        (["optimizer=schedulefree_sgd"], "scheduler: schedulefree.SGDScheduleFree goes without a schedule"),
        ([*FREE, "ema_decay=0.9"], "ema_decay=0.9: schedulefree.AdamWScheduleFree makes its own average"),
        ([*FREE, "strategy=finetune"], "strategy.batchnorm=train: the statistics would not be those of the average"),
        ([*FREE, "strategy=lp_ft"], "strategy.probe_epochs: schedulefree.AdamWScheduleFree makes one average"),
        ([*FREE, "strategy=gradual"], "strategy.every_epochs: schedulefree.AdamWScheduleFree makes one average"),
        (["runtime=deterministic", "runtime.train_precision=bf16"], "runtime.deterministic=true: expected fp32"),
        (["runtime=deterministic", "runtime.infer_precision=bf16"], "runtime.deterministic=true: expected fp32"),
        (["mixup_alpha=0.2", "batch_size=1"], "mixup_alpha=0.2: a batch of one has nothing to be mixed with"),
        (
            [*FREE, "optimizer.betas=[0.0,0.999]"],
            "optimizer.betas=[0.0, 0.999]: schedulefree.AdamWScheduleFree divides by",
        ),
        (["strategy=scratch", f"backbone.weights={__file__}"], f"backbone.weights={__file__}: strategy=scratch begins"),
        (["cutmix_alpha=1", "strategy.views=2", "augmentation=light"], "cutmix_alpha=1.0: images are mixed anew"),
        (["class_weights=auto", "sampler=balanced"], "class_weights=auto: sampler=balanced makes up for rare classes"),
        (["strategy.views=2"], "strategy.views=2: without augmentation all are the same; expected null"),
        (["strategy.views=2", "augmentation=light", "strategy.batchnorm=train"], "strategy.views=2: features that are"),
    ],
)
def test_a_rule_across_groups_names_its_keys(
    overrides: list[str], named: str, make_member: Callable[..., Member]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_member(*overrides)
    [line] = str(caught.value).splitlines()
    assert line.startswith(named)


@pytest.mark.parametrize(
    "overrides",
    [
        ["scheduler.warmup_epochs=9.99"],
        ["epochs=1", "scheduler.warmup_epochs=0.5"],
        ["optimizer=sgd", "optimizer.nesterov=true"],
        ["optimizer=sgd", "optimizer.momentum=0"],
        ["runtime=deterministic"],
        ["batch_size=1"],
        ["batch_size=1", "strategy=finetune", "strategy.batchnorm=eval"],
        ["batch_size=2", "accumulate_steps=2", "strategy=finetune", "strategy.batchnorm=eval"],
        ["batch_size=3", "accumulate_steps=2", "strategy=finetune"],
        [*FREE, "strategy=finetune", "strategy.batchnorm=eval", "clip_grad_norm=1.0"],
        ["runtime.train_precision=bf16"],
        ["strategy.views=1", "augmentation=light"],
        ["mixup_alpha=0.2", "cutmix_alpha=1.0", "batch_size=2"],
        ["mixup_alpha=0.2", "batch_size=1", "accumulate_steps=8"],
        ["sampler=balanced"],
        ["strategy.views=2", "augmentation.hflip_prob=0.1"],
        ["strategy.views=2", "augmentation.erase_prob=0.1"],
        ["strategy.views=2", "augmentation=trivial", *STILL],
        ["strategy.views=2", "augmentation=randaugment", *STILL],
    ],
)
def test_a_rule_across_groups_lets_the_rest_pass(overrides: list[str], make_member: Callable[..., Member]) -> None:
    member = make_member(*overrides)
    for key, value in (override.split("=") for override in overrides):
        group, _, name = key.partition(".")
        kept = member.config[group][name] if name else member.choices.get(group, member.config[group])
        assert kept == yaml.safe_load(value)


FOREIGN = ["os.system", "builtins.open", "torch.load", "torch.optimx.SGD", "tl_experimentsx.run", "x", "", "."]
OURS_BUT_NOT_THE_GROUPS = [
    "tl_experiments.cli.verbs.main",
    "tl_experiments.runtime.files.publish_text",
    "tl_experiments.sweep.folder.claimed",
    "tl_experiments.config.checks.os.system",
]
PRIVATE = [
    "{home}x.__globals__",
    "{home}x._private",
    "{home}__init__.x",
    "{home}x().y",
    "{home}x y",
    "{home}",
    "{home}x.",
]


@pytest.mark.parametrize("target", [*FOREIGN, *OURS_BUT_NOT_THE_GROUPS, *PRIVATE])
@pytest.mark.parametrize("group", HOMES)
def test_a_target_outside_the_groups_own_place_is_named(
    group: str, target: str, config: dict[str, Any], tmp_path: Path
) -> None:
    target = target.format(home=HOMES[group][0])
    [line] = problems(put(config, f"{group}._target_", target), tmp_path)
    assert line.startswith(f"{group}._target_={target}: not an allowed target; expected {HOMES[group][0]}*")
    assert "allow_targets" in line


def test_a_group_without_code_has_no_target(config: dict[str, Any], tmp_path: Path) -> None:
    [line] = problems(put(config, "runtime._target_", "tl_experiments.data.digits.digits"), tmp_path)
    assert line.startswith("runtime._target_=tl_experiments.data.digits.digits: not allowed here")
    del config["runtime"]["_target_"], config["strategy"]["_target_"]
    [line] = problems(config, tmp_path)
    assert line.startswith("strategy._target_=None: not an allowed target")


@pytest.mark.parametrize("key", ["_target_", "_args_", "_convert_", "_recursive_", "_anything"])
@pytest.mark.parametrize(
    ("place", "named"),
    [
        (lambda config: config["dataset"].setdefault("more", {}), "dataset.more"),
        (lambda config: config["dataset"].setdefault("more", [[], [{}]])[1][0], "dataset.more[1][0]"),
        (lambda config: config["runtime"], "runtime"),
        (lambda config: config["sweep"], "sweep"),
    ],
)
def test_what_would_run_is_found_however_deep_it_hides(
    place: Callable[[Any], Any], named: str, key: str, config: dict[str, Any], tmp_path: Path
) -> None:
    place(config)[key] = "torch.optim.SGD"
    [line] = problems(config, tmp_path)
    assert line.startswith(f"{named}.{key}=torch.optim.SGD: not allowed here; ")


@pytest.mark.parametrize("key", ["_args_", "_convert_", "_recursive_"])
def test_beside_a_target_nothing_says_how_it_is_called(key: str, config: dict[str, Any], tmp_path: Path) -> None:
    [line] = problems(put(config, f"strategy.{key}", [1]), tmp_path)
    assert line.startswith(f"strategy.{key}=[1]: not allowed here; ")


@pytest.mark.parametrize(("group", "expected"), [("strategy", "false"), ("dataset", "false"), ("optimizer", "true")])
def test_only_what_the_code_completes_is_partial(
    group: str, expected: str, config: dict[str, Any], tmp_path: Path
) -> None:
    for value in (expected != "true", "yes"):
        [line] = problems(put(config, f"{group}._partial_", value), tmp_path)
        assert line == f"{group}._partial_={value}: not allowed here; expected {expected}"


def test_what_is_resolved_is_not_resolved_again(config: dict[str, Any], tmp_path: Path) -> None:
    put(config, "tracking.experiment_name", "${oc.env:HOME}")
    config["dataset"]["more"] = ["a", {"b": "x${lr}"}]
    assert [line.partition(": ")[0] for line in problems(config, tmp_path)] == [
        "dataset.more[1].b=x${lr}",
        "tracking.experiment_name=${oc.env:HOME}",
    ]


@pytest.mark.parametrize("prefix", ["mine", "mine.", "mine.*", "mine.optim"])
def test_the_users_own_prefix_allows_what_is_below_it(prefix: str, config: dict[str, Any], tmp_path: Path) -> None:
    config["allow_targets"] = [prefix]
    assert problems(put(config, "optimizer._target_", "mine.optim.Lion"), tmp_path) == []
    assert len(problems(put(config, "optimizer._target_", "mined.optim.Lion"), tmp_path)) == 1
    assert all(allowed.endswith(".") for allowed in allowed_prefixes("optimizer", config))


@pytest.mark.parametrize("prefix", ["", ".", "*", ".*"])
def test_an_empty_prefix_allows_nothing(prefix: str, config: dict[str, Any], tmp_path: Path) -> None:
    config["allow_targets"] = [prefix]
    assert len(problems(put(config, "optimizer._target_", "os.system"), tmp_path)) == 1


def test_a_missing_folder_of_images_is_named(make_member: Callable[..., Member], tmp_path: Path) -> None:
    root = tmp_path / "images"
    with pytest.raises(ConfigError, match=rf"^dataset\.root={root}: no such folder"):
        make_member("dataset=image_folder", f"dataset.root={root}")
    with pytest.raises(ConfigError, match=r"^dataset\.root=~no_such_user/images: no such folder"):
        make_member("dataset=image_folder", "dataset.root='~no_such_user/images'")
    make_member("dataset=cifar10", f"dataset.root={root}")
    root.mkdir()
    make_member("dataset=image_folder", f"dataset.root={root}")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_table_of_images_is_named(kind: str, make_member: Callable[..., Member], tmp_path: Path) -> None:
    for root in (tmp_path / f"images.{kind}", tmp_path):
        with pytest.raises(ConfigError, match=rf"^dataset\.root={root}: no such file; expected a file of images"):
            make_member(f"dataset={kind}", f"dataset.root={root}")
    (tmp_path / f"images.{kind}").touch()
    make_member(f"dataset={kind}", f"dataset.root={tmp_path / f'images.{kind}'}")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ((), r"dataset\.name is missing; expected a name on the Hugging Face Hub, or a folder by dataset\.root=PATH"),
        (("dataset.name=a/b", "dataset.root={root}"), r"dataset\.name=a/b: dataset\.root says already what is read"),
        (("dataset.root={root}", "dataset.revision=v1"), r"dataset\.revision=v1: a folder has none; expected null"),
        (("dataset.root=/gone",), r"dataset\.root=/gone: no such folder"),
        (("dataset.root='~nobody-of-this-name'",), r"dataset\.root=~nobody-of-this-name: no such folder"),
    ],
)
def test_a_dataset_of_hugging_face_has_one_place(
    overrides: tuple[str, ...], line: str, make_member: Callable[..., Member], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"^{line}"):
        make_member("dataset=hf", *(override.format(root=tmp_path) for override in overrides))


def test_an_output_folder_that_cannot_be_written_is_named(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    [line] = problems(config, tmp_path / "file" / "run")
    assert line.startswith(f"{tmp_path / 'file' / 'run'}: cannot be written to")
    assert problems(config, tmp_path / "not" / "yet" / "there") == []


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("strategy._target_", "tl_experiments.strategies.partial.Partial", "runtime.fsdp=true: shares of a backbone"),
        ("ema_decay", 0.9, "ema_decay=0.9: not with runtime.fsdp=true; expected null"),
        ("clip_grad_norm", 1.0, "clip_grad_norm=1.0: not with runtime.fsdp=true; expected null"),
        (
            "runtime.memory_format",
            "auto",
            "runtime.memory_format=auto: not with runtime.fsdp=true; expected contiguous",
        ),
    ],
)
def test_what_each_process_would_need_whole_does_not_go_with_shares(
    key: str, value: Any, problem: str, config: dict[str, Any], tmp_path: Path
) -> None:
    config["strategy"] = {"_target_": "tl_experiments.strategies.finetune.Finetune", "batchnorm": "eval"}
    put(put(config, "runtime.fsdp", True), "runtime.memory_format", "contiguous")
    assert not [line for line in problems(config, tmp_path) if "fsdp" in line]
    [told] = [line for line in problems(put(config, key, value), tmp_path) if "fsdp" in line]
    assert told.startswith(problem)
