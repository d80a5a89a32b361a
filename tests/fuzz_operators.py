"""Calls the raw operators with hostile arguments: each call must give a result or an exception, never a crash.

    python tests/fuzz_operators.py --calls 1000000

Each batch runs in its own process, so that a crash can be detected. A batch that crashed runs again, and prints each
call before making it.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import warnings
from collections import Counter

import torch

FLOATING = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
OTHER = [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn]
NUMBERS = [0.01, -1.5, 0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324, 3, True, None, "0.1", 1j]
DIMS = [1, 0, -1, 2, 5, -7, 2**31, 2**63 - 1, -(2**63), 2**64, None, 0.5]
ENUMS = [-1, 3, 4, 2**31, 2**63 - 1, True, None, "0"]
BATCH = 50_000


def shape(rng):
    if rng.random() < 0.02:
        return [70_001]
    return [rng.choice([0, 1, 1, 2, 3, 4, 8]) for _ in range(rng.choice([0, 1, 2, 2, 3, 3, 4, 6, 10]))]


def dense(rng, sizes, dtype):
    values = torch.randn(sizes)
    if rng.random() < 0.1:
        values.fill_(rng.choice([math.nan, math.inf, -math.inf, 0.0, -0.0]))
    return values.to(dtype)


def laid_out(rng, x):
    """Returns a tensor with the same sizes in another layout."""
    kind = rng.randrange(8)
    if kind == 0 and x.ndim > 1:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if kind == 1 and x.ndim:
        return torch.stack([x, x], -1)[..., 1]
    if kind == 2 and x.ndim:
        return x[:1].expand(x.shape)
    if kind == 3 and x.numel():
        memory = torch.randn(x.numel() + 9).to(x.dtype)
        strides = [rng.choice([0, 1, 1, 2, 3]) for _ in x.shape]
        reach = sum((size - 1) * stride for size, stride in zip(x.shape, strides, strict=True))
        return memory.as_strided(x.shape, strides, rng.randrange(9)) if reach < x.numel() else x
    if kind == 4 and all(size == 1 for size in x.shape):
        return x.as_strided(x.shape, [rng.choice([0, 2**62, 2**40 + 1]) for _ in x.shape])
    if kind == 5 and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


def exotic(rng, x):
    """Returns an unusual tensor."""
    kind = rng.randrange(11)
    if kind == 0:
        return x.to("meta")
    if kind == 1:
        return torch.empty_strided(
            [2**31 + 5, 2**20][: rng.randrange(3)], [1, 2**33][: rng.randrange(3)], device="meta"
        )
    if kind == 2:
        return x.to_sparse()
    if kind == 3 and x.ndim == 2:
        return x.to_sparse_csr()
    if kind == 4:
        return torch.quantize_per_tensor(x.float(), 0.1, 3, torch.quint8)
    if kind == 5:
        return x.float().to_mkldnn()
    if kind == 6:
        return torch.complex(x.float(), x.float()).conj()
    if kind == 7:
        return torch.complex(x.float(), x.float()).conj().imag  # a view with the negative bit
    if kind == 8:
        return torch.nested.nested_tensor([x.float(), x.float()])
    if kind == 9:
        with torch.inference_mode():
            return x.clone()
    return x.detach().requires_grad_(x.is_floating_point())


def slope(rng, x):
    """Returns a slope for x, which usually fits."""
    dtype = rng.choice(FLOATING) if rng.random() < 0.9 else rng.choice(OTHER)
    kind = rng.randrange(6)
    if kind == 0 or not x.ndim:
        sizes = rng.choice([[], [1], [1, 1], [0]])
    elif kind < 3:
        sizes = [x.shape[rng.randrange(x.ndim)]]
    elif kind < 5:
        sizes = [size if rng.random() < 0.5 else 1 for size in x.shape]
    else:
        sizes = shape(rng)
    return laid_out(rng, dense(rng, sizes, dtype))


def mask(rng, x):
    size = (x.numel() + 7) // 8
    made = torch.randint(0, 256, (rng.choice([size, size, size, size + 1, max(size - 1, 0), 0]),), dtype=torch.uint8)
    kind = rng.randrange(15)
    if kind == 0:
        return made.repeat(2)[::2]
    if kind == 1:
        return made.to(rng.choice([torch.bool, torch.int8, torch.float32]))
    if kind == 2:
        return made[None]
    if kind == 3:
        return torch.nested.nested_tensor([made, made])
    return made.to("meta") if kind == 4 else made


def strides(rng, x):
    kind = rng.randrange(6)
    if kind < 3:
        return list(x.stride())
    if kind == 3:
        return list(x.transpose(0, -1).stride()) if x.ndim else [1]
    values = [0, 1, 1, 2, 3, -1, -5, 7, 2**40, 2**62, 2**63 - 1, -(2**63)]
    return [rng.choice(values) for _ in range(x.ndim if kind == 4 else rng.randrange(8))]


class Problem:
    """A tensor, and arguments that often fit it."""

    def __init__(self, rng):
        while True:
            try:
                dtype = rng.choice(FLOATING) if rng.random() < 0.85 else rng.choice(OTHER)
                self.x = laid_out(rng, dense(rng, shape(rng), dtype))
                plain = self.x
                if rng.random() < 0.2:
                    self.x = exotic(rng, self.x)
                self.grads = [laid_out(rng, dense(rng, plain.shape, dtype)) for _ in range(3)]
                self.grads.append(dense(rng, shape(rng), rng.choice(FLOATING)))
                self.grads.append(exotic(rng, self.grads[0]))
                self.alphas = [slope(rng, plain) for _ in range(6)] + [exotic(rng, slope(rng, plain))]
                self.masks = [mask(rng, plain) for _ in range(4)]
                self.strides = [strides(rng, plain) for _ in range(5)]
                return
            except (RuntimeError, ValueError, TypeError, NotImplementedError, IndexError):
                continue  # torch cannot make such a tensor: make another


def arguments(rng, op, problem):
    """Returns one value for each argument of the operator's schema."""
    kind = rng.randrange(4)
    fits = rng.random() < 0.8  # saved and mask are what this kind takes
    values = {}
    for argument in op._schema.arguments:
        name = argument.name
        if name == "x":
            choice = problem.x
        elif name == "grad":
            choice = rng.choice(problem.grads)
        elif name == "saved":
            choice = None if (kind == 3) == fits else rng.choice([problem.x] * 5 + problem.grads)
        elif name == "mask":
            choice = rng.choice(problem.masks) if (kind >= 2) == fits else None
        elif name == "alpha":
            choice = rng.choice([*problem.alphas, None])
        elif name in ("value", "low", "high"):
            choice = rng.choice(NUMBERS) if rng.random() < 0.3 else 0.25
        elif name == "channel_dim":
            choice = rng.choice(DIMS) if rng.random() < 0.3 else rng.randrange(-2, 3)
        elif name in ("formula", "kind"):
            choice = rng.choice(ENUMS) if rng.random() < 0.1 else kind if name == "kind" else rng.randrange(3)
        elif name == "revision":
            choice = rng.randrange(2**32)
        elif name == "stride":
            choice = rng.choice([*problem.strides, None, None])
        elif name == "output_mask":
            choice = [rng.random() < 0.6 for _ in range(rng.choice([2] * 20 + [1, 0, 3]))]
        else:
            raise NotImplementedError(f"{op} has an argument that is not fuzzed: {name}")
        if rng.random() < 0.005:
            choice = rng.choice([None, 1.5, "x", [], problem.alphas[0], problem.x, 2**70])
        values[name] = choice
    return values


def describe(value):
    if not isinstance(value, torch.Tensor):
        return repr(value)
    strides = tuple(value.stride()) if value.layout == torch.strided and not value.is_nested else value.layout
    size = "nested" if value.is_nested else tuple(value.shape)
    return f"<{value.dtype} {value.device} {size} {strides} grad={value.requires_grad}>"


def operators():
    import leaky_ext  # noqa: F401  (defines them)

    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("leaky_ext::")]
    split = [name.removeprefix("leaky_ext::").partition(".") for name in sorted(names)]
    return [getattr(getattr(torch.ops.leaky_ext, base), overload or "default") for base, _, overload in split]


def run_batch(seed, calls, trace):
    """Makes the calls. Counts the results and each type of exception."""
    warnings.simplefilter("ignore")
    torch.manual_seed(seed)
    rng = random.Random(seed)
    ops = operators()
    outcomes = Counter()
    problems = []
    for i in range(calls):
        if i % 5000 == 0:
            problems = [Problem(rng) for _ in range(150)]
        op, problem = rng.choice(ops), rng.choice(problems)
        values = arguments(rng, op, problem)
        if trace:
            print(op, {name: describe(value) for name, value in values.items()}, flush=True)
        try:
            with torch.set_grad_enabled(rng.random() < 0.3):
                op(**values)
            outcomes[f"results of {op}"] += 1
        except Exception as error:
            outcomes[type(error).__name__] += 1
    return outcomes


def in_process(seed, calls, trace=False):
    command = [sys.executable, __file__, "--seed", str(seed), "--batch", str(calls)] + ["--trace"] * trace
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if sys.platform == "linux":  # glibc's checks of the heap, unless a sanitizer's are there
        environment |= {"MALLOC_CHECK_": "3"}
        environment.setdefault("LD_PRELOAD", "libc_malloc_debug.so.0")
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def fuzz(calls, seed):
    """Makes the calls in batches. Counts the results and exceptions; a crash is an AssertionError."""
    outcomes = Counter()
    for done in range(0, calls, BATCH):
        batch, batch_seed = min(BATCH, calls - done), seed + done // BATCH
        process = in_process(batch_seed, batch)
        if process.returncode:
            last = in_process(batch_seed, batch, trace=True).stdout.splitlines()[-1:]
            said = f"batch {batch_seed} ended with status {process.returncode}; the last call: {last}"
            raise AssertionError(f"{said}\n{process.stderr[-3000:]}")
        outcomes.update(json.loads(process.stdout))
        print(f"{done + batch:,} calls: {dict(outcomes)}", flush=True)
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, help="make so many calls in this process")
    parser.add_argument("--trace", action="store_true", help="print each call of the batch before it is made")
    options = parser.parse_args()
    if options.batch:
        print(json.dumps(run_batch(options.seed, options.batch, options.trace)))
    else:
        fuzz(options.calls, options.seed)


if __name__ == "__main__":
    main()
