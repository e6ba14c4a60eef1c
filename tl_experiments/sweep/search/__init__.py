"""A sweep whose jobs are found while it runs: Optuna is asked for the next ones and told of those that have ended."""
