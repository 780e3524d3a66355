"""Locks on files, which the system takes away with the process that holds them."""

from lightning_repshape.errors import ConfigError


def locked(file: int, wait: bool, purpose: str) -> bool:
    """Locks an open file for this process and those that inherit it.

    Args:
        file: Its descriptor.
        wait: Whether to wait until nobody else has the lock.
        purpose: Who needs the lock, for the message where the system has none.

    Returns:
        Whether the lock is held now.

    Raises:
        ConfigError: If the system has no such locks, as Windows.
    """
    check_locks(purpose)
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def check_locks(purpose: str) -> None:
    """Looks whether the system has locks.

    Args:
        purpose: Who needs them, for the message.

    Raises:
        ConfigError: If it has none, as Windows.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{purpose}: this needs file locks that are lifted with their process (fcntl), which this "
            "system does not have"
        ) from error
