"""Every kind of installation, each in its own environment that uses the torch of the tests."""

import os
import re
import shutil
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
import torch
from environments import TRY_IT, Environment, run

from leaky_ext import _build

ROOT = Path(__file__).parents[1]
MINOR = ".".join(torch.__version__.split(".")[:2])
# A compiler that copies the object of a source that it compiled before under the same flags, paths aside. Most of a
# build is spent on torch's headers, and most tests here are not about the compiler.
COMPILE_ONCE = """#!/bin/sh
flags= source= previous=
for word; do
  case $previous in -o) object=$word ;; esac
  case $word in *.cpp) source=$word ;; */* | -I* | -MMD | -MF | -c | -o) ;; *) flags="$flags $word" ;; esac
  previous=$word
done
[ "$source" ] || exec c++ "$@"
tree=${source%csrc/*}csrc
key=$( (echo "$flags ${source#"$tree"}"; find "$tree" -type f | sort | xargs cat) | sha256sum | cut -c 1-32)
known=${0%/*}/$key.o
[ -f "$known" ] || { c++ "$@" && cp "$object" "$known.$$" && mv "$known.$$" "$known"; } || exit
cp "$known" "$object"
"""
USED_BY_COMPILE_ONCE = ("find", "sort", "xargs", "cat", "sha256sum", "cut", "cp", "mv")


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """Returns the environment variable for a build with this compiler."""
    compiler = tmp_path_factory.mktemp("compiler") / "c++"
    compiler.write_text(COMPILE_ONCE)
    compiler.chmod(0o755)
    return {"CXX": str(compiler)}


@pytest.mark.slow
@pytest.mark.parametrize("pip", ["pip==23.2.1", "pip==26.0"])
def test_pip_install_builds_against_the_installed_torch(tmp_path, source, pip, compile_once):
    environment = Environment(tmp_path / "venv", "torch", pip=pip)
    said = environment.pip("install", "-v", "--no-deps", source, FORCE_CUDA="0", **compile_once)
    what = f"the CPU kernels against torch {torch.__version__}: FORCE_CUDA=0"
    assert said.index(f"leaky_ext: building {what}") < said.index(f"leaky_ext: built {what}")
    package = environment.imported_from()
    assert package == environment.site / "leaky_ext"
    assert f"Requires-Dist: torch=={MINOR}.*" in next(environment.site.glob("leaky_ext-*/METADATA")).read_text()
    assert sum(file.stat().st_size for file in package.rglob("*")) < 2 * 2**20

    show = "import leaky_ext; print(leaky_ext.show_config())"
    assert "reason:    FORCE_CUDA=0" in run(environment.python, "-c", show)
    data = package / "_build.py"
    data.write_text("".join(line for line in data.read_text().splitlines(True) if "WHY" not in line))
    assert "reason:    unknown" in run(environment.python, "-c", show)
    data.write_text(data.read_text().replace(torch.__version__, "1.13.1"))
    message = run(environment.python, "-c", "import leaky_ext", check=False)
    assert "ImportError" in message and "1.13.1" in message and torch.__version__ in message


@pytest.mark.slow
def test_pip_install_builds_against_a_torch_behind_a_pth_file(tmp_path, source, compile_once):
    torch_is_in = Environment(tmp_path / "other", "torch").site
    environment = Environment(tmp_path / "venv", pip="pip==26.0")
    (environment.site / "other.pth").write_text(f"{torch_is_in}\n")
    force = "0" if torch.version.cuda else None
    said = environment.pip("install", "-v", "--no-deps", source, FORCE_CUDA=force, **compile_once)
    assert f"the CPU kernels against torch {torch.__version__}" in said
    assert "cuda-toolkit" not in said  # nor torch: both are large downloads
    assert "Collecting torch" not in said
    assert environment.imported_from() == environment.site / "leaky_ext"


@pytest.mark.slow
def test_pip_install_builds_against_a_torch_in_the_users_site(tmp_path, source, compile_once):
    """Uses the base interpreter, because virtual environments have no user site."""
    python, user = sys._base_executable, {"PYTHONUSERBASE": str(tmp_path / "user"), "PYTHONPATH": None}
    site = Path(sysconfig.get_path("purelib", "posix_user", {"userbase": user["PYTHONUSERBASE"]}))
    site.mkdir(parents=True)
    for entry in Environment(tmp_path / "other", "torch", pip="pip==26.0").site.iterdir():
        (site / entry.name).symlink_to(entry)
    command = [python, "-m", "pip", "install", "-v", "--user", "--break-system-packages", "--no-deps", source]
    said = run(*command, FORCE_CUDA="0", **user, **compile_once)
    assert f"the CPU kernels against torch {torch.__version__}" in said
    assert run(python, "-c", TRY_IT, **user).splitlines()[-1] == str(site / "leaky_ext" / "__init__.py")


@pytest.mark.slow
def test_editable_install(tmp_path, source, compile_once):
    environment = Environment(tmp_path / "venv", "torch", pip="pip==26.0")
    environment.pip("install", "--no-deps", "-e", source, **compile_once)
    assert environment.imported_from() == source / "leaky_ext"


@pytest.mark.slow
def test_sdist_holds_all_sources_and_builds_without_ninja(tmp_path, source, compile_once):
    """Also without isolation and without any index: a build fetches nothing."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, source)
    archive = next(tmp_path.glob("leaky_ext-*.tar.gz"))
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    wanted = [file for folder in ("csrc", "leaky_ext", "build_backend") for file in (source / folder).rglob("*.*")]
    assert not {str(file.relative_to(source)) for file in wanted if "egg-info" not in str(file)} - packed

    environment = Environment(tmp_path / "venv", "torch", "setuptools", pip="pip==26.0")
    tools = tmp_path / "tools"  # what a build needs, and no ninja
    tools.mkdir()
    for tool in ("c++", "g++", "gcc", "cc", "as", "ld", "which", "sh", "ar", *USED_BY_COMPILE_ONCE):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    options = ["install", "-v", "--no-build-isolation", "--no-index", "--no-deps"]
    said = environment.pip(*options, archive, PATH=str(tools), FORCE_CUDA="0", **compile_once)
    assert "could not find ninja" in said
    assert environment.imported_from() == environment.site / "leaky_ext"


@pytest.mark.slow
def test_uv_pip_install(tmp_path, source, compile_once):
    """pyproject.toml disables isolation, because uv does not tell a build which environment it is for."""
    environment = Environment(tmp_path / "venv", "torch", "setuptools")
    tools = Path(sys.executable).parent  # uv and ninja
    command = [tools / "uv", "pip", "install", "--python", environment.python, "--no-deps", "."]
    run(*command, cwd=source, FORCE_CUDA="0", PATH=f"{tools}:{os.environ['PATH']}", **compile_once)
    assert environment.imported_from() == environment.site / "leaky_ext"


@pytest.mark.slow
def test_install_from_git(tmp_path, compile_once):
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    environment = Environment(tmp_path / "venv", "torch", pip="pip==26.0")
    environment.pip("install", "--no-deps", f"git+file://{ROOT}", **compile_once)
    assert environment.imported_from() == environment.site / "leaky_ext"


@pytest.mark.slow
@pytest.mark.parametrize("packages, wanted", [(["setuptools"], True), (["setuptools", "torch"], False)])
def test_torch_is_asked_for_only_where_there_is_none(tmp_path, source, packages, wanted):
    environment = Environment(tmp_path / "venv", *packages)
    hook = "import sys; sys.path.insert(0, 'build_backend'); import backend, json; "
    hook += "print(*backend.get_requires_for_build_wheel(), *backend.get_requires_for_build_sdist(), sep='\\n')"
    said = run(environment.python, "-c", hook, cwd=source)
    assert said.splitlines().count("torch>=2.11") == int(wanted)


def build(source, check, **environment):
    return run(sys.executable, "setup.py", "build_ext", check=check, cwd=source, **environment)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ccache") is None, reason="no ccache")
def test_ccache_is_respected(source, tmp_path):
    cache = {"CXX": "ccache c++", "CCACHE_DIR": str(tmp_path / "cache"), "FORCE_CUDA": "0"}
    cache["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # ninja
    build(source, True, **cache)
    shutil.rmtree(source / "build")
    build(source, True, **cache)
    compiled = sum(not name.endswith(".cu") for name in (source / "csrc" / "sources.txt").read_text().split())
    assert re.search(rf"^(direct|preprocessed)_cache_hit\t{compiled}$", run("ccache", "--print-stats", **cache), re.M)


def test_no_compiler_is_said_so(source):
    assert "no C++ compiler: 'no-such-compiler' is not on PATH" in build(source, False, CXX="no-such-compiler")


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_forced_cuda_without_cuda_in_torch_is_said_so(source):
    assert "FORCE_CUDA=1, but this torch has no CUDA" in build(source, False, FORCE_CUDA="1")


@pytest.mark.skipif(_build.WITH_CUDA, reason="this build has CUDA kernels")
def test_a_build_without_cuda_says_how_to_get_it():
    """Calls the replacement of the CUDA kernel with a CPU tensor, because a CUDA tensor requires a GPU."""
    cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    with pytest.raises(RuntimeError, match=r"show_config\(\) says why.*FORCE_CUDA=1 pip install --force-reinstall"):
        torch.ops.leaky_ext.forward.default.redispatch(cuda, torch.ones(3), None, 0.1, 1, 0)
