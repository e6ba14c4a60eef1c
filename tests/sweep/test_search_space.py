"""Hydra's sweep syntax becomes a space, whose ends are tried and whose conditional keys are left out."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tl_experiments.config.checks import check_ranges
from tl_experiments.config.errors import ConfigError
from tl_experiments.sweep.search.settings import Parameter
from tl_experiments.sweep.search.space import corners, space_of


def space(*typed: str) -> tuple[Parameter, ...]:
    return space_of(OverridesParser.create().parse_overrides(list(typed)))


@pytest.mark.parametrize(
    ("typed", "parameter", "told"),
    [
        ("lr=interval(0.1,0.5)", Parameter("lr", low=0.1, high=0.5), "0.1 to 0.5"),
        (
            "lr=tag(log, interval(1e-5,1e-1))",
            Parameter("lr", low=1e-5, high=0.1, log=True),
            "1e-05 to 0.1, logarithmic",
        ),
        ("epochs=int(interval(2,9))", Parameter("epochs", low=2, high=9, step=1, whole=True), "2 to 9, whole"),
        (
            "epochs=tag(log, int(interval(2,9)))",
            Parameter("epochs", low=2, high=9, log=True, whole=True),
            "2 to 9, whole, logarithmic",
        ),
        ("epochs=range(1,10,2)", Parameter("epochs", low=1, high=9, step=2, whole=True), "1 to 9, in steps of 2"),
        ("epochs=range(9,0,-4)", Parameter("epochs", low=1, high=9, step=4, whole=True), "1 to 9, in steps of 4"),
        (
            "optimizer.weight_decay=range(0,0.3,0.1)",
            Parameter("optimizer.weight_decay", low=0, high=0.2, step=0.1),
            "0 to 0.2, in steps of 0.1",
        ),
        (
            "strategy=feature,finetune,feature",
            Parameter("strategy", choices=("feature", "finetune")),
            "feature, finetune",
        ),
        ("lr=choice(1e-3,0.5)", Parameter("lr", choices=("0.001", "0.5")), "0.001, 0.5"),
    ],
)
def test_each_form_of_hydras_sweeps_is_a_parameter(typed: str, parameter: Parameter, told: str) -> None:
    assert space(typed, "seed=3", "optimizer.momentum=choice(0.9)") == (parameter,)
    assert str(parameter) == told


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("seed=3", "nothing to search: expected keys with values to choose from"),
        ("lr=interval(1e-1,1e-5)", "lr=interval(1e-1,1e-5): an interval without numbers; expected the lower end first"),
        ("lr=tag(log, interval(0,1))", "no logarithm of 0; expected an interval above 0"),
        ("lr=tag(logg, interval(1,2))", "the tag logg says nothing here"),
        ("lr=tag(log, choice(1,2))", "the tag log says nothing here"),
        ("lr=shuffle(1,2)", "a search has no order that could be shuffled"),
    ],
)
def test_what_is_no_space_is_told_in_one_line(typed: str, error: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(error)):
        space(typed)


@pytest.mark.parametrize(
    ("parameter", "drawn", "text"),
    [
        (Parameter("lr", low=1e-5, high=0.1, log=True), 0.00123456, "0.001235"),
        (Parameter("lr", low=1e-5, high=0.1, log=True), 0.0999999, "0.1"),
        (Parameter("lr", low=0.00012345678, high=0.1, log=True), 0.0001234567801, "0.0001235"),
        (Parameter("lr", low=0.00012345678, high=0.1, log=True), 0.00012341, "0.00012345678"),
        (Parameter("lr", low=1.0, high=1.00001, log=True), 1.000004567, "1.00000457"),
        (Parameter("x", low=0.0, high=0.5), 0.123456, "0.1235"),
        (Parameter("x", low=100.0, high=100.01), 100.00123456, "100.00123"),
        (Parameter("x", low=0.0, high=0.3, step=0.1), 0.1 + 0.1 + 0.1, "0.3"),
        (Parameter("epochs", low=1, high=9, step=1, whole=True), 4, "4"),
    ],
)
def test_values_are_short_and_stay_inside(parameter: Parameter, drawn: float, text: str) -> None:
    assert parameter.text(drawn) == text
    assert parameter.low <= float(text) <= parameter.high


def test_every_end_is_tried_with_an_option_that_has_the_key() -> None:
    found = space("strategy=feature,finetune", "strategy.backbone_lr_scale=0.1,1", "lr=interval(0.001,0.1)")
    tried = list(corners(found, swept={parameter.key: parameter.choices for parameter in found}))
    assert tried == [
        {"strategy": "feature", "lr": "0.001"},
        {"strategy": "finetune", "strategy.backbone_lr_scale": "0.1", "lr": "0.001"},
        {"strategy": "finetune", "strategy.backbone_lr_scale": "0.1", "lr": "0.001"},
        {"strategy": "finetune", "strategy.backbone_lr_scale": "1", "lr": "0.001"},
        {"strategy": "feature", "lr": "0.001"},
        {"strategy": "feature", "lr": "0.1"},
    ]


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("num_trials", 1, 0),
        ("n_startup_trials", 0, -1),
        ("min_trials", 1, 0),
        ("min_epochs", 1, 0),
        ("seed", 0, -1),
    ],
)
def test_settings_of_the_sweeper_have_ranges(key: str, accepted: int, refused: int) -> None:
    check_ranges({"hydra": {"sweeper": {key: accepted}}})
    with pytest.raises(ConfigError, match=rf"hydra\.sweeper\.{key}={refused}: expected"):
        check_ranges({"hydra": {"sweeper": {key: refused}}})
