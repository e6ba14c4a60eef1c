"""What every job needs, imported once in the process that jobs are forked from, and nowhere else."""
# ruff: noqa: F401 - the imports are what it is for

from tl_experiments.runtime.importing import importing

with importing():  # a job's collector leaves all these objects alone, so that their memory stays shared
    import alembic.command
    import matplotlib.backends.backend_agg
    import mlflow.store.tracking.sqlalchemy_store
    import sklearn.metrics
    import sqlalchemy.dialects.sqlite

    import tl_experiments.data.digits
    import tl_experiments.experiment
    import tl_experiments.features.store
    import tl_experiments.models.efficientnet_lite0
    import tl_experiments.strategies.feature
    import tl_experiments.sweep.process
    import tl_experiments.tracking.last_words
    import tl_experiments.tracking.mlflow_tracker
