"""`tlx register`: a run's model gets a name, a version and an alias in MLflow's registry."""

import argparse

from tl_experiments.cli.parsing import Verbs, add_run, add_tracking_uri


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("register", help="name a run's model in MLflow's registry")
    add_run(parser)
    parser.add_argument("name", metavar="NAME", help="of the registered model; it is made where it is missing")
    parser.add_argument("--alias", metavar="ALIAS", help="such as champion; another version that has it loses it")
    add_tracking_uri(parser)
    parser.set_defaults(verb=_register)


def _register(options: argparse.Namespace) -> None:
    from tl_experiments.tracking.registry import register

    found = register(options.run, options.name, alias=options.alias, tracking_uri=options.tracking_uri)
    known = "" if found.is_new else ", which it was before"
    print(f"{found.name} version {found.version}{known}: models:/{found.name}/{found.version}")
    if options.alias:
        moved = "" if found.moved_from is None else f", until now version {found.moved_from}"
        print(f"{options.alias}: version {found.version}{moved}: models:/{found.name}@{options.alias}")
