"""The table: the registers and shared memory that the kernels use, and the instructions that they issue."""

from dataclasses import dataclass

from cases import Case, Layout, shifted
from elements import SIZE
from errors import Fault, Unsupported
from tensors import Setup


@dataclass
class Limits:
    """The limits of one multiprocessor."""

    threads: int
    blocks: int
    shared: int  # KiB of shared memory


LIMITS = {
    80: Limits(2048, 32, 164),
    86: Limits(1536, 16, 100),
    89: Limits(1536, 24, 100),
    90: Limits(2048, 32, 228),
    100: Limits(2048, 32, 228),
    103: Limits(2048, 32, 228),
    120: Limits(1536, 24, 100),
}


@dataclass
class Device:
    name: str
    arch: int
    multiprocessors: int
    clock: float  # Hz
    bandwidth: float  # bytes per second


DEVICES = (
    Device("H100", 90, 132, 1.755e9, 3.35e12),
    Device("H200", 90, 132, 1.755e9, 4.8e12),
    Device("B200", 100, 148, 1.85e9, 8e12),
)
REACHED = 0.92  # share of the bandwidth
THREADS = 256  # per block, for kernels that no row launches
NEAR_ISSUE_BOUND = 0.75  # share of the issue slots


def blocks_resident(limits, resources, threads, shared):
    """Returns how many blocks fit on a multiprocessor.

    Each warp gets a multiple of 256 registers, each block a multiple of 128 bytes of shared memory plus 1 KiB.
    """
    warps = threads // 32
    by_registers = 65536 // (-(-max(resources.registers, 1) * 32 // 256) * 256) // warps
    by_shared = limits.shared * 1024 // (-(-shared // 128) * 128 + 1024)
    return min(limits.threads // threads, by_registers, by_shared, limits.blocks)


def issue_share(device, instructions, moved):
    """Returns the share of a device's issue slots that a kernel uses at REACHED of the bandwidth.

    Each thread issues `instructions` for `moved` bytes. A multiprocessor has 4 issue slots per clock.
    """
    rate = instructions / 32 / moved * REACHED * device.bandwidth
    return rate / (device.multiprocessors * 4 * device.clock)


def table_cases(dtype):
    """Returns (title, tensors that are read or written, whether there is a mask, function) for each row.

    The function creates the case. Its argument is the size of each tensor, in units of 16 KiB.
    """
    piece = 16384 // SIZE[dtype]  # elements

    def forward(shape, alpha="value", **options):
        return lambda n: Case("forward", dtype, shape(n), alpha, multiprocessors=1, blocks=(0,), **options)

    def backward(shape, alpha="value", **options):
        return lambda n: Case("backward", dtype, shape(n), alpha, multiprocessors=1, blocks=(0,), **options)

    def flat(n):
        return 1, 1, n * piece

    def nchw(n):
        return n, 4, piece // 4

    def nhwc(n):
        return n * piece // 64, 64, 1

    def sliced(name):
        return lambda n: {name: Layout(((n * piece // 1024, 2048), (1024, 1)))}

    def with_layout(case, layouts):
        def build(n):
            built = case(n)
            built.layouts = layouts(n)
            return built

        return build

    alone, sums = {"grad_alpha": ""}, {"alpha": "float32"}
    return [
        ("forward, one slope", 2, False, forward(flat)),
        ("forward, one slope, mask", 2, True, forward(flat, mask=True)),
        ("forward, ReLU, mask", 2, True, forward(flat, mask=True, relu=True)),
        ("forward, NCHW", 2, False, forward(nchw, "float32")),
        ("forward, NHWC C=64", 2, False, forward(nhwc, dtype)),
        ("forward, NHWC C=64, mask", 2, True, forward(nhwc, dtype, mask=True)),
        ("forward, unaligned", 2, False, forward(flat, "float32", layouts={"x": shifted()})),
        ("forward, sliced", 2, False, with_layout(forward(flat, "float32"), sliced("x"))),
        ("backward, mask, grad_x", 2, True, backward(flat, kind="mask", **alone)),
        ("backward, input, grad_x", 3, False, backward(flat, **alone)),
        ("backward, NCHW, input, grad_x", 3, False, backward(nchw, "float32", **alone)),
        ("backward, input", 3, False, backward(flat, **sums)),
        ("backward, input, grad_alpha", 2, False, backward(flat, grad_x=False, **sums)),
        ("backward, output", 3, False, backward(flat, kind="output", all_negative=True, **sums)),
        ("backward, output+mask", 3, True, backward(flat, kind="output+mask", all_negative=True, **sums)),
        ("backward, NHWC C=64, input", 3, False, backward(nhwc, dtype)),
        ("backward, input, unaligned", 3, False, backward(flat, layouts={"grad": shifted()}, **sums)),
        ("backward, input, sliced", 3, False, with_layout(backward(flat, **sums), sliced("saved"))),
    ]


def count(project, arch, case):
    """Runs the first block of the first launch. Returns the launch and the instructions that the first warp issued.

    Also returns the number of packs that the first thread read, and the most bytes that it had in flight.
    """
    setup = Setup(project, case)
    launch = project.record(case.direction == "forward", setup.call)[0]
    setup.memory.new_launch()
    emulator = project.emulator(arch, launch, setup.memory, blocks=[0], trace=True)
    emulator.run()
    first = "x" if case.direction == "forward" else "grad"
    return launch, sum(emulator.issued), setup.memory.bytes_of_first_thread[first] / 16, emulator.in_flight.most


def resident_blocks(arch, resources, threads, shared):
    return blocks_resident(LIMITS[arch], resources, threads, shared) if arch in LIMITS else 0


def measure(project, arch, title, dtype, tensors, with_mask, create, sizes):
    """Returns one row of the table. A pack is 16 bytes of each tensor."""
    (_, fewer, few, _), (launch, more, many, in_flight) = [count(project, arch, create(n)) for n in sizes]
    # The difference leaves out the instructions before a block's first tile. If every block has one tile, they count.
    instructions = more / many if many == few else (more - fewer) / (many - few)
    moved = tensors * 16 + (2 / SIZE[dtype] if with_mask else 0)
    resources = project.resources[arch, launch.kernel]
    shared = resources.shared + launch.shared_bytes
    resident = resident_blocks(arch, resources, launch.block, shared)
    return {
        "case": title,
        "dtype": dtype,
        "kernel": launch.kernel,
        "registers": resources.registers,
        "spilled_bytes": resources.spills,
        "shared_bytes": shared,
        "blocks_per_multiprocessor": resident,
        "bytes_in_flight_per_multiprocessor": in_flight * resident * launch.block,
        "instructions_per_pack": instructions,
        "bytes_per_pack": moved,
        "issue_share": {device.name: issue_share(device, instructions, moved) for device in DEVICES},
    }


def measure_all(project, arch, quick, report):
    """Returns the rows of all dtypes. Prints and reports those that cannot run."""
    rows = []
    for dtype in ("float32", "bfloat16") if quick else ("float32", "bfloat16", "float16", "float64"):
        for title, *row_case in table_cases(dtype):
            try:
                rows.append(measure(project, arch, title, dtype, *row_case, sizes=(32, 96) if quick else (64, 192)))
            except (Unsupported, Fault) as error:
                print(f"{title:32}{dtype:10}not run: {error}")
                report["table"].append({"case": title, "dtype": dtype, "error": str(error)})
    return rows


def print_row(row, name):
    print(
        f"{row['case']:32}{row['dtype']:10}{name[:53]:54}"
        f"{row['registers']:5}{row['spilled_bytes']:6}{row['shared_bytes']:7}{row['blocks_per_multiprocessor']:7}"
        f"{row['bytes_in_flight_per_multiprocessor'] / 1024:7.0f}{row['instructions_per_pack']:7.1f}"
        + "".join(f"{x:7.2f}{'!' if x > NEAR_ISSUE_BOUND else ' '}" for x in row["issue_share"].values())
    )


def report_others(project, arch, quick, names, report, seen):
    """Reports the kernels that no row launched, and prints them; with `quick`, prints those that spill."""
    others = sorted((k for a, k in project.kernels if a == arch and k not in seen), key=lambda k: names[k])
    print("the other kernels that spill:" if quick else "the other kernels:")
    for kernel in others:
        resources = project.resources[arch, kernel]
        resident = resident_blocks(arch, resources, THREADS, resources.shared)
        report["others"].append(
            {
                "kernel": names[kernel],
                "registers": resources.registers,
                "spilled_bytes": resources.spills,
                "shared_bytes": resources.shared,
                "blocks_per_multiprocessor": resident,
            }
        )
        if resources.spills or not quick:
            numbers = f"{resources.registers:5}{resources.spills:6}{resources.shared:7}{resident:7}"
            print(f"{'':42}{names[kernel][:53]:54}{numbers}")


def table(project, arch, quick, names, report):
    heads = f"{'case':32}{'dtype':10}{'kernel':54}{'regs':>5}{'spill':>6}{'smem':>7}"
    heads += f"{'blk/SM':>7}{'KiB/SM':>7}{'instr':>7}"
    print(f"\n{heads}" + "".join(f"{d.name + ('' if d.arch == arch else '*'):>8}" for d in DEVICES))
    near, rows = [], measure_all(project, arch, quick, report)
    for row in rows:
        print_row(row, names[row["kernel"]])
        shares = row["issue_share"]
        bound = [d.name for d in DEVICES if d.arch == arch and shares[d.name] > NEAR_ISSUE_BOUND]
        near += [f"{row['case']} {row['dtype']} on {name}: {shares[name]:.2f}" for name in bound]
        rounded = {
            "kernel": names[row["kernel"]],
            "instructions_per_pack": round(row["instructions_per_pack"], 2),
            "issue_share": {name: round(x, 3) for name, x in shares.items()},
        }
        report["table"].append(row | rounded)
    report_others(project, arch, quick, names, report, seen={row["kernel"] for row in rows})
    print("KiB/SM: what all resident threads request from memory before they wait (without slopes).")
    print("instr: the instructions that a thread issues per 16-byte pack.")
    print(f"H100, H200, B200: the share of the issue slots that these use at {REACHED:.0%} of the bandwidth;")
    print(f"  *: the device itself runs code for another architecture; !: over {NEAR_ISSUE_BOUND}, near issue-bound.")
    total = len(rows) * sum(d.arch == arch for d in DEVICES)
    print(f"near issue-bound on the devices that run this code: {len(near)} of {total}")
    report["near_issue_bound"] = near
