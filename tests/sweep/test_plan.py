"""A plan that is read back is data: its jobs stay inside its folder, and run no code that nobody has named now."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.sweep.plan import FILE, Plan, PlannedJob

Spoil = Callable[[dict[str, Any]], object]


@pytest.fixture
def saved(make_member: Callable[..., Member], tmp_path: Path) -> Path:
    """The folder of a sweep of two jobs."""
    member, folder = make_member(), tmp_path / "sweep"
    folder.mkdir()
    jobs = tuple(
        PlannedJob(
            index=index,
            name=f"{index} seed={index}",
            overrides=(f"seed={index}",),
            values={"seed": str(index)},
            config={**member.config, "seed": index},
            choices=member.choices,
            uid=str(index) * 32,
            folder=str(index),
            digest=str(index) * 64,
        )
        for index in range(2)
    )
    whole = {
        "uid": "u",
        "name": "n",
        "created": "c",
        "overrides": (),
        "hydra_overrides": (),
        "settings": {},
        "code": {},
    }
    Plan(**whole, jobs=jobs, groups=((0,), (1,))).save(folder)
    return folder


def spoilt(folder: Path, spoil: Spoil) -> Path:
    """Change the second job of a plan by hand."""
    fields = json.loads((folder / FILE).read_text())
    spoil(fields["jobs"][1])
    (folder / FILE).write_text(json.dumps(fields))
    return folder


def test_a_plan_comes_back_as_it_was_saved_and_is_trusted(saved: Path) -> None:
    plan = Plan.load(saved)
    plan.require_trusted(saved, allow_targets=[])
    assert [job.folder for job in plan.jobs] == ["0", "1"]


@pytest.mark.parametrize("folder", ["../../x", "/etc", "1/../../x", "..", ".", "", "a/\0b"])
def test_no_job_leads_out_of_the_folder(folder: str, saved: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Plan.load(spoilt(saved, lambda job: job.update(folder=folder)))
    line = str(caught.value)
    assert line.startswith(f"{saved / FILE}: hydra.sweep.subdir={folder!r}: not a folder below the sweep's")
    assert "\n" not in line


def test_no_link_leads_out_of_the_folder(saved: Path, tmp_path: Path) -> None:
    (saved / "1").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r"/sweep/1: leads out of the folder of the sweep"):
        Plan.load(saved)
    (saved / "1").unlink()
    (saved / "elsewhere").mkdir()
    (saved / "1").symlink_to("elsewhere")
    assert len(Plan.load(saved).jobs) == 2


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda job: job["config"]["strategy"].update(_target_="os.system"), "strategy._target_=os.system: not an"),
        (lambda job: job["config"].update(lr=-1), "lr=-1: expected a number above 0, or auto"),
        (lambda job: job["config"].update(lr="x"), "lr=x: expected a number above 0, or auto"),
        (lambda job: job["config"].update(lr="${oc.env:HOME}"), "lr='${oc.env:HOME}': interpolations are not"),
        (lambda job: job["config"].update(allow_targets=["os", "posix"]), "runs code of os, posix; expected allow_t"),
        (lambda job: job["config"].update(more=1), "more: no such key"),
    ],
)
def test_what_could_not_be_typed_is_not_run(spoil: Spoil, told: str, saved: Path) -> None:
    plan = Plan.load(spoilt(saved, spoil))
    with pytest.raises(ConfigError) as caught:
        plan.require_trusted(saved, allow_targets=["mine."])
    [line] = [line for line in str(caught.value).splitlines() if "optimizer.lr" not in line]
    assert line.startswith(f"{saved / FILE}: job 1 seed=1: {told}")


def test_code_of_ones_own_is_named_again(saved: Path) -> None:
    def own(job: dict[str, Any]) -> None:
        job["config"]["allow_targets"] = ["mine."]
        job["config"]["strategy"]["_target_"] = "mine.Strategy"

    plan = Plan.load(spoilt(saved, own))
    plan.require_trusted(saved, allow_targets=["mine."])
    with pytest.raises(ConfigError, match="runs code of mine"):
        plan.require_trusted(saved, allow_targets=[])
    assert [job.config["allow_targets"] for job in plan.without_own_code().jobs] == [[], []]


@pytest.mark.parametrize("spoil", [lambda job: job.update(config=3), lambda job: job["config"].pop("allow_targets")])
def test_a_job_without_a_configuration_is_none(spoil: Spoil, saved: Path) -> None:
    with pytest.raises(ConfigError, match="was changed by hand, so that it is no plan any more: job 1 has no"):
        Plan.load(spoilt(saved, spoil))
