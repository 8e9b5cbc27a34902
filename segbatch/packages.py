"""Packages that are not installed: what to install for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segbatch.errors import ModelError

# What `pip install` is given for a module, where that is not the module's name.
_DISTRIBUTIONS = {
    "ray": "'ray[data,default]'",
    "pydensecrf": "'segbatch[reference]'",
    "timm": "'segbatch[train]'",
    "matplotlib": "'segbatch[train]'",
    "skimage": "'segbatch[demo]'",
    "imgviz": "'segbatch[demo]'",
    "cv2": "'segbatch[export]'",
    "pillow_heif": "'segbatch[heif]'",
    "s3fs": "'segbatch[s3]'",
    "gcsfs": "'segbatch[gcs]'",
    "adlfs": "'segbatch[azure]'",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "duckdb": "'segbatch[query]'",
}


def missing_package(error: BaseException, what: str) -> str:
    """Return the message about a package that is not installed, with the command that installs it.

    Args:
        error: Raised by the import.
        what: What needs the package.

    Returns:
        Empty if ``error`` is another one.
    """
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not module or module == "segbatch":
        return ""
    return f"{what} needs {module}, which is not installed; pip install {_DISTRIBUTIONS.get(module, module)}"


@contextmanager
def packages_of_model(name: str) -> Iterator[None]:
    """Raise ``ModelError`` with the command that installs it for a package that the model ``name`` lacks."""
    try:
        yield
    except ModuleNotFoundError as e:
        if message := missing_package(e, f"model {name}"):
            raise ModelError(message) from None
        raise
