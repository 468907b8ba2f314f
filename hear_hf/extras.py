"""Says which extra to install where a sub-package lacks what it imports."""

from importlib.util import find_spec


def require(package: str, extra: str, *modules: str) -> None:
    """
    Checks that the modules a sub-package imports are installed.

    Args:
        package (`str`): The sub-package, for example `"hear_hf.data"`.
        extra (`str`): The extra of `hear_hf` that installs them.
        *modules (`str`): Top-level modules, by the names they are imported under.

    Raises:
        `ImportError`: Some are not installed; the message gives the command that installs them.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ImportError(f'{package} needs {", ".join(missing)}, not installed here: pip install "hear_hf[{extra}]"')
