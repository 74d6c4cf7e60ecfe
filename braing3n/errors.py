"""One error type for everything a user can put right."""

from __future__ import annotations

from pathlib import Path


class BrainG3NError(Exception):
    """A problem with a named file or setting, and what to do about it.

    Args:
        problem: what is wrong, in one sentence.
        file: the file, folder or setting that it is about.
        expected: what would have been right.
        found: what was there instead.
        remedy: what the user can do.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ):
        self.problem, self.file = problem, file
        self.expected, self.found, self.remedy = expected, found, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.file}: {self.problem}" if self.file is not None else self.problem
        for label, value in (("expected", self.expected), ("found", self.found), ("remedy", self.remedy)):
            if value is not None:
                text += f"; {label}: {value}"
        return text

    def __reduce__(self):
        # Exceptions cross process boundaries in the shard runner; keyword-only arguments need a hand.
        return _rebuild, (type(self), self.problem, self.file, self.expected, self.found, self.remedy)


def _rebuild(cls, problem, file, expected, found, remedy):
    return cls(problem, file=file, expected=expected, found=found, remedy=remedy)


class ExcludeVolume(Exception):  # noqa: N818 - a decision about one volume, not an error of the program
    """Raised by a preprocessing step to leave one volume out, with the reason that the ledger records."""


class ResumeLater(Exception):  # noqa: N818 - work was saved in time, nothing went wrong
    """Raised when a training leaves before its end with a checkpoint; the same command, run again, continues it."""

    EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: schedulers see a failure, and a retry resumes
