"""The end of a run from outside."""


class Stopped(BaseException):
    """The run was ended from outside.

    status: exit status of the command: 143 after SIGTERM, which announces that a machine is taken away; 130 after
        Ctrl-C; 75 where another host of the run is gone.
    """

    def __init__(self, why: str, status: int):
        super().__init__(why)
        self.status = status
