"""Imports every module of the sub-package that an extra serves: `python -I import_extra.py train`."""

import importlib
import pkgutil
import sys

# Those that are not named as their extras.
PACKAGES = {"train": "training", "onnx": "deployment", "openvino": "deployment", "executorch": "mobile"}

package = importlib.import_module(f"hear_hf.{PACKAGES.get(sys.argv[1], sys.argv[1])}")
names = [module.name for module in pkgutil.iter_modules(package.__path__)]
for name in names:
    importlib.import_module(f"{package.__name__}.{name}")
print(f"{package.__file__}: {', '.join(names)}")
