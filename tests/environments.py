"""Virtual environments for tests of installations. They use the torch of the tests."""

import os
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

TRY_IT = """
import torch, leaky_ext
alpha = torch.full((1,), 0.25, requires_grad=True)
leaky_ext.learnable_leaky_relu(torch.tensor([-2.0, 3.0]), alpha).sum().backward()
assert alpha.grad.item() == -2
print(leaky_ext.__file__)
"""


def run(*command, check=True, cwd="/", **environment):
    """Returns the output of a command, including errors. An environment variable that is None is removed."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    process = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, cwd=cwd
    )
    assert not check or process.returncode == 0, process.stdout[-5000:]
    assert check or process.returncode != 0, "this should have failed:\n" + process.stdout[-5000:]
    return process.stdout


def with_dependencies(*names):
    """Returns the distributions with these names, and those that they require."""
    found, left = {}, list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name not in found:
            found[name] = distribution(name)
            wanted = map(Requirement, found[name].requires or [])
            left += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found.values()


class Environment:
    """A virtual environment with links to packages of the environment that runs the tests."""

    def __init__(self, folder, *packages, pip=None):
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.python = folder / "bin" / "python"
        self.site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
        for one in with_dependencies(*packages):
            for top in {file.parts[0] for file in one.files} - {"..", "__pycache__"}:
                if not (self.site / top).exists():
                    (self.site / top).symlink_to(one.locate_file(top))
        if pip:
            run(sys.executable, "-m", "pip", "--python", self.python, "install", "-q", pip)

    def pip(self, *arguments, **options):
        return run(self.python, "-m", "pip", *arguments, **options)

    def imported_from(self):
        """Trains one slope, and returns the path of leaky_ext."""
        return Path(run(self.python, "-c", TRY_IT).splitlines()[-1]).parent
