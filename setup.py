"""Build of the compiled operators (csrc/), and packaging of datasets/ and cfg/; pyproject.toml has all other settings."""

import os
import re
import shutil
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
LIBRARY = ROOT / "src/seqmem/ops/_extension.so"


def check_build_requirements():
    """Refuse old build tools in one line: setuptools before 77 fails on pyproject.toml with a long traceback.

    Raises:
        SystemExit: a package is missing or too old.
    """
    for requirement in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]:
        name, minimum = requirement.split(">=")
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "none"
        if numbers(found) < numbers(minimum):
            sys.exit(f"{name}: got {found}, expected {minimum} or newer; run: pip install --upgrade '{requirement}'")


def numbers(release):
    """Return the leading numbers of a version; empty if it has none."""
    return [int(number) for number in re.match(r"[\d.]*", release)[0].split(".") if number]


check_build_requirements()

# ninja compiles in parallel, and only what changed; in an environment that is not activated it is not on the path.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

from torch.utils import cpp_extension  # noqa: E402
from torch.version import __version__ as torch_version  # noqa: E402


def module(name):
    """Import a module of the package that needs the standard library alone; the package may not be installed."""
    path = ROOT / f"src/seqmem/{name}.py"
    spec = spec_from_file_location(path.stem, path)
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


built, sources = module("io/built"), module("ops/sources")


class BuildOperators(cpp_extension.BuildExtension.with_options(no_python_abi_suffix=True)):
    """Build the extension; without a compiler an install continues, and the package uses its reference operators."""

    def finalize_options(self):
        self.is_forced = self.force  # BuildExtension sets it in any case
        super().finalize_options()

    def run(self):
        # A failed build is an error of `build_ext`, but only a warning of an install.
        is_requested = "build_ext" in self.distribution.commands
        try:
            super().run()
        except (Exception, SystemExit) as error:
            if is_requested:
                raise
            self.extensions = []
            self.warn(f"the compiled operators were not built, seqmem will use the slower reference: {error}")

    def build_extensions(self):
        """Compile, unless the checkout has a library of the same sources, flags and version of torch."""
        [extension] = self.extensions
        built_from, built_for = sources.identity(ROOT / "csrc"), torch_version.split("+")[0]
        content = LIBRARY.read_bytes() if LIBRARY.is_file() and not self.is_forced else b""
        found = [sources.embedded(content, f"seqmem {line}") for line in ("sources", "built for torch")]
        if found == [built_from, built_for]:
            target = Path(self.get_ext_fullpath(extension.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            print(f"not compiled again: {LIBRARY} has the sources {built_from[:10]} and torch {built_for} already")
            return
        generated = Path("build/seqmem_sources.cpp")
        definition = sources.definition(built_from)
        # An unchanged file is not written again, so that ninja does not compile it again.
        if not generated.exists() or generated.read_text() != definition:
            generated.parent.mkdir(exist_ok=True)
            generated.write_text(definition)
        extension.sources.append(str(generated))
        super().build_extensions()

    def get_export_symbols(self, ext):
        return []  # the library has no PyInit function: it is loaded by path


class BuildModules(build_py):
    """Copy datasets/ and cfg/ into the package, and note the commit; in a checkout the package finds them in place."""

    def run(self):
        package = Path(self.build_lib, "seqmem")
        if self.editable_mode:
            super().run()
            return
        shutil.rmtree(package, ignore_errors=True)  # modules that no longer exist
        super().run()
        shutil.copytree(ROOT / "cfg", package / "cfg")
        built.write(package, ROOT)

    def find_package_modules(self, package, package_dir):
        modules = super().find_package_modules(package, package_dir)
        if package == "seqmem.datasets":
            modules += [(package, path.stem, str(path.relative_to(ROOT))) for path in sorted(ROOT.glob("datasets/*.py"))]
        return modules


setup(
    ext_modules=[
        Extension(
            "seqmem.ops._extension",
            sources=sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/*.cpp")),
            depends=sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/*.h")),
            include_dirs=cpp_extension.include_paths(),
            library_dirs=cpp_extension.library_paths(),
            libraries=["c10", "torch_cpu"],
            extra_compile_args=list(sources.FLAGS),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildOperators, "build_py": BuildModules},
)
