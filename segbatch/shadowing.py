"""Files beside the user that hide a module which segbatch and its packages import, such as a ``numpy.py``."""

from __future__ import annotations

import os
import sys

# What a job imports besides the standard library.
PACKAGES = frozenset({
    "PIL", "adlfs", "aiobotocore", "aiohttp", "annotated_types", "attr", "attrs", "azure", "botocore", "certifi",
    "charset_normalizer", "click", "cloudpickle", "dateutil", "filelock", "frozenlist", "fsspec", "gcsfs", "google",
    "grpc", "httpx", "idna", "jmespath", "jsonschema", "matplotlib", "msgpack", "multidict", "numpy", "packaging",
    "pandas", "psutil", "pyarrow", "pydantic", "pydantic_core", "ray", "referencing", "requests", "rich", "rpds",
    "s3fs", "safetensors", "segbatch", "simplejpeg", "six", "skimage", "sympy", "timm", "torch", "torchvision",
    "tqdm", "triton", "typer", "typing_extensions", "typing_inspection", "urllib3", "wrapt", "yaml", "yarl",
})  # fmt: skip


def hiding_files() -> list[str]:
    """Return the files that this process finds before the modules that are meant.

    The folder of its script and the current folder are examined, if the process searches them before the installed
    packages. A folder of installed packages, and the one that this package is in, hide nothing by mistake.
    """
    before_installed = sys.path[: next((i for i, p in enumerate(sys.path) if p == os.path.dirname(os.__file__)), None)]
    searched = {os.path.realpath(folder) for folder in before_installed}
    beside = {os.path.realpath(os.getcwd()), os.path.dirname(os.path.realpath(sys.argv[0]))}
    own = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    return [path for folder in sorted(searched & beside - {own}) for path in _hiding(folder)]


def problem() -> str:
    """Return the message about files that hide modules; "" if there are none."""
    paths = hiding_files()
    if not paths:
        return ""
    name = os.path.basename(paths[0]).partition(".")[0]
    more = f", and {len(paths) - 1} more such files" if len(paths) > 1 else ""
    return (
        f"{paths[0]} hides the module {name}, which segbatch or a package of it imports{more}; rename it, or run the "
        "command in another folder"
    )


def _hiding(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    if any(name.endswith(".dist-info") for name in names):
        return []
    hidden = PACKAGES | sys.stdlib_module_names
    modules = [n for n in names if n.endswith(".py") and n.removesuffix(".py") in hidden]
    packages = [n for n in names if n in hidden and os.path.isfile(os.path.join(folder, n, "__init__.py"))]
    return [os.path.join(folder, name) for name in (*modules, *packages)]
