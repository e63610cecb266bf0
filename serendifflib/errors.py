"""Errors that a user can cause, each in one line: what, where, what to do."""

from __future__ import annotations

from collections.abc import Collection


class SerenDiffError(Exception):
    """Base of every error that this package raises on purpose.

    The command line prints the message alone and exits with status 2.
    """


class DataError(SerenDiffError):
    """An input file or table breaks the schema; names file, row and column."""


class UnknownDatasetError(SerenDiffError):
    """A data id is neither registered nor the path of an existing file."""


class DownloadError(SerenDiffError):
    """A download failed, was cut short, or its checksum does not match."""


class UnknownUserError(SerenDiffError):
    """A user id does not occur in the data, or has no usable history."""


class UnknownItemError(SerenDiffError):
    """An item id does not occur in the data."""


class ConfigError(SerenDiffError):
    """A setting, preset, profile or option has a value that is not known."""


class CheckpointError(SerenDiffError):
    """A saved model is damaged, of another version, or of another shape."""


class CacheError(SerenDiffError):
    """A cache or results folder cannot be written (full, read-only)."""


class ModelError(SerenDiffError):
    """A model was asked for something it cannot score; names the model."""


def check_choice(
    what: str, value: object, known: Collection[str], who: str = ""
) -> None:
    """Refuse a value that is none of the ``known`` ones by a ConfigError.

    ``what`` is the option's name and ``who`` its owner, for the message.
    """
    if value not in known:
        raise ConfigError(
            f"{who and who + ': '}unknown {what} {value!r}: choose one of "
            f"{', '.join(known)}"
        )
