"""Build the compiled operators (csrc/) and take in the data sets (datasets/); all else is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from torch.utils import cpp_extension

ROOT = Path(__file__).parent


class BuildOperators(cpp_extension.BuildExtension.with_options(no_python_abi_suffix=True)):
    """Builds where a compiler is found; without one an install goes on, and the package runs on its reference path."""

    def run(self):
        # Asked for by name, a build that fails is a failed command; as part of an install it is a slower package.
        asked_for = "build_ext" in self.distribution.commands
        try:
            super().run()
        except (Exception, SystemExit) as error:
            if asked_for:
                raise
            self.extensions = []
            self.warn(f"the compiled operators were not built; seqmem will use its plain-torch reference: {error}")

    def get_export_symbols(self, ext):
        return []  # loaded by path: there is no PyInit function to export


class BuildModules(build_py):
    """Put the modules of datasets/ into seqmem.datasets, which finds them where they are in a checkout."""

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
            # OpenMP is compiled for, not linked: at::parallel_for must use the runtime that torch has loaded.
            extra_compile_args=[
                "-O3",
                "-g0",
                "-std=c++20",
                "-fopenmp",
                "-fvisibility=hidden",
                "-fno-math-errno",
                "-ffp-contract=fast",
            ],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildOperators, "build_py": BuildModules},
)
