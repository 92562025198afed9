"""Build of the compiled operators (csrc/) and packaging of the data sets (datasets/); pyproject.toml has all other settings."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from torch.utils import cpp_extension

ROOT = Path(__file__).parent


class BuildOperators(cpp_extension.BuildExtension.with_options(no_python_abi_suffix=True)):
    """Build the extension; without a compiler an install continues, and the package uses its reference operators."""

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

    def get_export_symbols(self, ext):
        return []  # the library has no PyInit function: it is loaded by path


class BuildModules(build_py):
    """Copy the modules of datasets/ into seqmem.datasets, which in a checkout finds them in place."""

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
            # Compiled for OpenMP but not linked with it: at::parallel_for must use the runtime of torch.
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
