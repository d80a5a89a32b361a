"""DDP, FSDP2, DTensor and torch.distributed.checkpoint, on 2 and on 4 gloo processes.

Every check in tests/distributed is a function that runs on all ranks and compares with the same thing done by one
process. All checks of a world run in one set of processes; each has a test of its own.
"""

import datetime
import subprocess
import sys
import traceback

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from distributed import data_parallel, dtensors, state  # noqa: F401  (they register their checks)
from distributed.common import CHECKS


def worker(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        *("gloo", f"file://{folder}/rendezvous"), rank=rank, world_size=world, timeout=datetime.timedelta(seconds=60)
    )
    failures = {}
    for name, function in CHECKS.items():
        try:
            (folder / name).mkdir(exist_ok=True)
            function(folder / name)
        except Exception:
            failures[name] = traceback.format_exc()
        dist.barrier()
    torch.save(failures, folder / f"failures{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def failures(request, tmp_path_factory):
    """Returns the failures of each rank by the name of the check."""
    world, folder = request.param, tmp_path_factory.mktemp("world")
    mp.spawn(worker, (world, folder), nprocs=world)
    return [torch.load(folder / f"failures{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize("name", CHECKS)
def test_on_all_ranks(failures, name):
    failed = {rank: own[name] for rank, own in enumerate(failures) if name in own}
    assert not failed, "\n".join(f"rank {rank}:\n{trace}" for rank, trace in failed.items())


def test_importing_leaky_ext_does_not_import_dtensor():
    code = "import sys, leaky_ext; assert 'torch.distributed.tensor' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_first_call_with_dtensor_may_be_compiled(tmp_path):
    code = f"""
import torch, leaky_ext
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
torch.distributed.init_process_group("gloo", init_method="file://{tmp_path}/store", rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
x = distribute_tensor(torch.randn(4, 8), mesh, [Shard(1)])
alpha = distribute_tensor(torch.randn(8), mesh, [Shard(0)])
y = torch.compile(leaky_ext.learnable_leaky_relu, fullgraph=True, backend="aot_eager")(x, alpha)
assert y.placements == (Shard(1),)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
