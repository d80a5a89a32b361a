"""Compares the results of a case with the formulas."""

import math

import numpy as np
from elements import BITS, SIZE, compute_type, decode, rounded
from errors import Wrong
from tensors import GAP

ERROR_OF_SUM = {"float64": 1e-13}  # allowed, times sum|g * x|; other types: 1e-6


def require_equal(name, got, expected):
    """Raises Wrong unless all values are equal. -0.0 differs from 0.0; all NaNs are equal."""
    equal = (got == expected) & (np.signbit(got) == np.signbit(expected)) | (np.isnan(got) & np.isnan(expected))
    if not equal.all():
        k, count = int(np.flatnonzero(~equal)[0]), (~equal).sum()
        raise Wrong(f"{name}: {count} of {equal.size} wrong; element {k} is {got[k]}, expected {expected[k]}")


def expected_y(setup):
    case, kind = setup.case, compute_type(setup.case.dtype)
    x, alpha = setup.x.astype(kind), setup.alpha.astype(kind)
    with np.errstate(all="ignore"):
        if case.relu:
            y = np.where(x < 0, kind(0), x)
        else:
            y = np.where(~(x >= 0), alpha * x, x + kind(0) if case.signed else x)
        return rounded(y, case.dtype)


def expected_grad_x(setup):
    kind = compute_type(setup.case.dtype)
    grad, alpha = setup.grad.astype(kind), setup.alpha.astype(kind)
    with np.errstate(all="ignore"):
        return rounded(np.where(setup.negative, alpha * grad, grad), setup.case.dtype)


def check_written(setup, name):
    if missing := setup.memory.unwritten(name):
        raise Wrong(f"{name}: {missing} bytes are not written")


def check_elements(setup, name, expected):
    dtype = setup.case.dtype
    if setup.case.repeat:
        check_log(setup, name, SIZE[dtype], lambda k, data: require_equal(name, decode(data, dtype), expected[k]))
    else:
        check_written(setup, name)
        require_equal(name, decode(setup.memory.bytes(name), dtype), expected)


def check_mask(setup, expected):
    bits = np.packbits(expected.astype(np.uint8), bitorder="little")
    # Bits past the last element must be 0. If the operands repeat, inner bytes of the mask are compared with the same
    # byte of `bits` as the last one, so that both values are accepted.
    last = bits.copy()
    if rest := setup.case.numel % 8:
        last[(setup.case.numel // 8) % bits.size] &= (1 << rest) - 1

    def check_bytes(k, data):
        got = np.frombuffer(data, np.uint8)
        wrong = (got != bits[k]) & (got != last[k])
        if wrong.any():
            raise Wrong(f"mask: byte {int(k[wrong][0])} is wrong")

    if setup.case.repeat:
        check_log(setup, "mask", 1, check_bytes)
    else:
        check_written(setup, "mask")
        check_bytes(np.arange(bits.size), setup.memory.bytes("mask"))


def check_log(setup, name, size, check):
    """Checks an output that is too large for memory, from the list of its writes.

    Calls `check` with the elements of each write, modulo the length after which operands repeat, and their bytes.
    """
    region, seen = setup.memory.region(name), set()
    for offsets, data in region.log:
        elements = (offsets[:, None] // size + np.arange(data.shape[1] // size)).reshape(-1)
        seen.update((int(elements.min()), int(elements.max())))
        check(elements % (setup.numel if name != "mask" else setup.numel // 8), data.tobytes())
    if not seen or (setup.case.reaches_end and (min(seen), max(seen)) != (0, region.size // size - 1)):
        raise Wrong(f"{region.name}: the first or last element is not written")


def check_in_place(setup):
    size, memory = SIZE[setup.case.dtype], setup.memory
    data = np.frombuffer(memory.bytes("x"), np.uint8).reshape(-1, size)
    between = np.ones(len(data), bool)
    between[setup.x_places] = False
    if (data[between] != GAP).any():
        raise Wrong("in place: bytes between the elements were written")
    require_equal("y", decode(data[setup.x_places].tobytes(), setup.case.dtype), expected_y(setup))


def check_grad_alpha(setup):
    case = setup.case
    check_written(setup, "grad_alpha")
    got = decode(setup.memory.bytes("grad_alpha"), case.grad_alpha)
    with np.errstate(all="ignore"):
        terms = np.where(setup.negative, setup.grad * setup.x, 0.0)
    for channel in range(case.shape[1]):
        summands = terms[setup.channel == channel]
        if not np.isfinite(summands).all():
            with np.errstate(all="ignore"):
                require_equal("grad_alpha", got[channel : channel + 1], np.array([summands.sum()]))
            continue
        exact, total = math.fsum(summands), math.fsum(np.abs(summands))
        allowed = ERROR_OF_SUM.get(case.dtype, 1e-6) * total
        allowed += (abs(exact) + allowed) * 2.0 ** -BITS[case.grad_alpha]  # rounding to the type of grad_alpha
        allowed += 6e-8 if case.grad_alpha == "float16" else 1e-40
        error = abs(got[channel] - exact)
        if not error <= allowed:
            times = f"the error is {error / allowed:.3g} times the allowed one"
            raise Wrong(f"grad_alpha[{channel}] is {got[channel]}, expected {exact}: {times}")


def check_results(setup):
    """Raises Wrong if an output of the case is wrong."""
    case = setup.case
    if case.direction == "forward":
        if case.in_place:
            check_in_place(setup)
        elif case.numel:
            check_elements(setup, "y", expected_y(setup))
        if case.mask and case.numel:
            check_mask(setup, ~(setup.x >= 0))
    else:
        if case.grad_x and case.numel:
            check_elements(setup, "grad_x", expected_grad_x(setup)[setup.order])
        if case.grad_alpha and not case.blocks:
            check_grad_alpha(setup)
