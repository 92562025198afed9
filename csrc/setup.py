"""``python setup.py install`` in this folder builds the compiled operators in place, as the ordinary install does."""

import os
import runpy
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
if sys.argv[1:] != ["install"]:
    sys.exit("usage: python setup.py install")
os.chdir(root)
sys.argv = ["setup.py", "build_ext", "--inplace"]
runpy.run_path("setup.py", run_name="__main__")
