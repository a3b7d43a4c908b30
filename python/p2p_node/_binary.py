"""Where the p2p-node program is."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ._errors import BinaryNotFound

BINARY_VARIABLE = "P2P_NODE_BIN"
"""The environment variable that names the program."""

NAME = "p2p-node.exe" if sys.platform == "win32" else "p2p-node"


def find_binary(chosen: str | os.PathLike[str] | None = None) -> Path:
    """The program: `chosen`, else `P2P_NODE_BIN`, else the first that is found where it is usually put.

    What somebody named must be there: nothing else is run in its place.
    """
    if chosen is not None:
        return _named(Path(chosen), "the argument binary")
    variable = os.environ.get(BINARY_VARIABLE)
    if variable:
        return _named(Path(variable), BINARY_VARIABLE)
    tried: list[str] = []
    for path in _usual_places():
        if _is_program(path):
            return path
        tried.append(f"{path} (not executable)" if path.exists() else str(path))
    on_path = shutil.which(NAME)
    if on_path is not None:
        return Path(on_path)
    tried.append(f"PATH={os.environ.get('PATH', '')}")
    raise BinaryNotFound("the p2p-node program is not there", places=tried)


def _named(path: Path, by_what: str) -> Path:
    if _is_program(path):
        return path
    wrong = "is not executable" if path.exists() else "is not there"
    raise BinaryNotFound(
        f"{path} {wrong}", why=f"{by_what} names it, so no other place was tried", places=[str(path)]
    )


def _usual_places() -> Iterator[Path]:
    package = Path(__file__).resolve().parent
    # Where pip puts programs: for this Python, and for `pip install --user`.
    yield Path(sysconfig.get_path("scripts")) / NAME
    yield Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))) / NAME
    yield package / NAME
    # `pip install --target DIR` puts the package into DIR and programs into DIR/bin.
    yield package.parent / "bin" / NAME
    # `pip install --prefix DIR`: the package is in DIR/lib/python3.x/site-packages.
    if package.parent.name == "site-packages":
        yield package.parents[3] / "bin" / NAME
    yield from _built_in(package.parent.parent)


def _built_in(checkout: Path) -> list[Path]:
    """What cargo has made of a checkout of this project; first what was built last."""
    if not (checkout / "Cargo.toml").is_file():
        return []
    target = checkout / os.environ.get("CARGO_TARGET_DIR", "target")
    programs = [target / profile / NAME for profile in ("release", "debug")]
    return sorted(programs, key=lambda path: path.stat().st_mtime if path.exists() else 0.0, reverse=True)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
