"""What pip installs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ("harness", "suites", "reports", "fixtures", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs a source checkout to build from"),
]


def build(kind: str, source: Path, target: Path) -> Path:
    target.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(target)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel built from the checkout, and one built from the source distribution."""
    folder = tmp_path_factory.mktemp("build")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, checkout / name)
    direct = build("wheel", checkout, folder / "direct")
    shutil.rmtree(checkout / "build", ignore_errors=True)
    sdist = build("sdist", checkout, folder / "sdist")
    shutil.unpack_archive(sdist, folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    return direct, build("wheel", unpacked, folder / "indirect")


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_sdist_and_checkout_give_the_same_package(wheels: tuple[Path, Path]) -> None:
    assert names(wheels[0]) == names(wheels[1])


def test_nothing_but_pruneproof_is_importable_afterwards(wheels: tuple[Path, Path]) -> None:
    tops = {name.partition("/")[0] for name in names(wheels[0])}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pruneproof"}


def test_every_module_template_schema_and_data_file_is_in_the_wheel(wheels: tuple[Path, Path]) -> None:
    inside = names(wheels[0])
    for folder, package in (("harness", ""), ("suites", "suites/"), ("reports", "reports/"), ("fixtures", "fixtures/")):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"pruneproof/{package}{file.relative_to(ROOT / folder).as_posix()}" in inside, file


def test_the_wheel_stays_small(wheels: tuple[Path, Path]) -> None:
    assert wheels[0].stat().st_size < 2_000_000
