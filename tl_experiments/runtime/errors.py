"""Errors that a user can mend: each message says what happened, what was expected and how to fix it, on one line."""


class UserError(Exception):
    """Something outside the program is wrong; the door prints the message alone and exits with code 2."""


class DataError(UserError):
    """The data set is missing, malformed or unreadable."""


class WeightsError(UserError):
    """Pretrained weights could not be found, read or matched to the architecture."""


class SettingError(UserError):
    """Settings that are valid one by one do not work together or on this machine."""


class RunFailed(UserError):  # noqa: N818 - it names what happened
    """The run began and could not go on, for a reason that its settings or its data explain; exit code 1."""


class RankLost(RunFailed):
    """Another process of the same run is gone, or has not answered in time; the run can be gone on with."""
