"""The end of a run from outside."""


class Stopped(BaseException):
    """The run was ended from outside.

    status: the exit status of the command: 143 for SIGTERM, with which machines are taken away, 130 for Ctrl-C, 75
        where another host of the run is gone.
    """

    def __init__(self, why: str, status: int):
        super().__init__(why)
        self.status = status
