"""Records of runs. MLflow's habits are set here, because it reads some of them while it is imported."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # links are printed once, by the console
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # making a database is no news
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it counts files, of which one is nearly all
