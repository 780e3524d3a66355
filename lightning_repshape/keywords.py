"""Keyword arguments that a constructor hands on, for type checkers and for the command line alike."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Unpack as Options
else:

    class Options:
        """``**kwargs: Options[Shared]`` is ``Unpack[Shared]`` for a type checker, and ``Any`` when the program runs.

        jsonargparse shows the keys of an unpacked TypedDict without their defaults, and leaves them out of
        ``--print_config`` and of saved configs. Without Unpack it follows ``**kwargs`` to the base class's constructor,
        which declares each option once: its default, and what it means.
        """

        def __class_getitem__(cls, keys: type) -> object:
            """What stands for the keys when the program runs."""
            return Any
