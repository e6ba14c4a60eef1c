"""The params of a run are few, flat and readable, and hold no path."""

from tl_experiments.tracking.params import as_text, run_params

CHOICES = {
    "backbone": "resnet18",
    "strategy": "finetune",
    "optimizer": "adamw",
    "scheduler": "cosine",
    "dataset": "image_folder",
    "augmentation": "standard",
    "runtime": "auto",
    "tracking": "mlflow",
    "hydra/launcher": "basic",
}
CONFIG = {
    "lr": 1e-3,
    "epochs": 10,
    "batch_size": 32,
    "seed": 0,
    "allow_targets": [],
    "backbone": {
        "_target_": "t",
        "name": "resnet18",
        "weights": "/home/me/secret/mine.safetensors",
        "image_size": None,
    },
    "strategy": {"_target_": "t", "batchnorm": "eval", "backbone_lr_scale": 0.1},
    "optimizer": {"_target_": "t", "_partial_": True, "lr": 1e-3, "weight_decay": 0.01, "betas": [0.9, 0.999]},
    "scheduler": {"_target_": "t", "_partial_": True, "warmup_epochs": 0.0, "min_lr_fraction": 0.0},
    "dataset": {"_target_": "t", "root": "/home/me/images", "train_size": 0.5, "val_fraction": 0.1, "split_seed": 0},
    "augmentation": {"_target_": "t", "hflip_prob": 0.5, "scale": [0.5, 1.0]},
    "runtime": {"device": "auto", "train_precision": "bf16", "workers": 2, "image_memory_gb": 4.0, "threads": None},
    "tracking": {"_target_": "t", "uri": "sqlite:////home/me/mlflow.db", "experiment_name": "x"},
}


def test_a_run_is_described_by_few_params() -> None:
    params = run_params(CONFIG, CHOICES)
    assert params["strategy"] == "finetune"
    assert params["lr"] == 1e-3
    assert params["optimizer.weight_decay"] == 0.01
    assert params["strategy.batchnorm"] == "eval"
    assert params["dataset.train_size"] == 0.5
    assert params["augmentation.scale"] == "0.5, 1.0"
    assert params["runtime.train_precision"] == "bf16"
    assert 15 <= len(params) <= 40


def test_params_name_no_place_no_target_and_nothing_twice() -> None:
    params = run_params(CONFIG, CHOICES)
    assert not [value for value in map(str, params.values()) if "/" in value]
    assert params["backbone.weights"] == "mine.safetensors"
    absent = {"tracking", "tracking.uri", "optimizer._target_", "optimizer.lr", "backbone.name", "dataset.root"}
    assert not absent & params.keys()
    assert not [key for key in params if key.startswith("hydra")]


def test_the_name_within_an_option_that_has_many_is_kept() -> None:
    config = CONFIG | {"backbone": {"name": "hf-hub:timm/vit_tiny", "weights": None, "image_size": 64}}
    params = run_params(config, CHOICES | {"backbone": "timm"})
    assert params["backbone"] == "timm"
    assert params["backbone.name"] == "hf-hub:timm/vit_tiny"
    assert params["backbone.weights"] is None


def test_values_read_as_they_are_typed() -> None:
    assert [as_text(value) for value in (None, True, False, 1, 0, 1e-5, "x")] == [
        *("null", "true", "false", "1", "0", "1e-05", "x")
    ]


def test_options_that_are_on_are_told_and_those_that_are_off_are_not() -> None:
    off = {"label_smoothing": 0.0, "class_weights": None, "sampler": "shuffle", "mixup_alpha": 0.0, "cutmix_alpha": 0.0}
    assert not off.keys() & run_params(CONFIG | off, CHOICES).keys()
    on = {"label_smoothing": 0.1, "class_weights": {"cat": 2.0, "dog": 0.5}, "sampler": "balanced", "mixup_alpha": 0.2}
    params = run_params(CONFIG | off | on, CHOICES)
    assert params.items() >= (on | {"class_weights": "cat=2, dog=0.5"}).items()
    assert "cutmix_alpha" not in params
