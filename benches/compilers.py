"""What the compilers of real GPUs make of wgtune's kernels, on a machine without such a GPU.

    cargo build --release
    python benches/compilers.py --wgtune target/release/wgtune --out benches/results/compilers [NAME ...]

Mesa's drivers for AMD (RADV), NVIDIA (NVK) and Apple (Honeykrisp) compile for GPUs behind kernel devices that do nothing (Mesa's
drm-shim): nothing runs, and all that is told is what became of each shader. They are those of Debian's newest suite, in a folder of its own,
which --debian keeps, or takes where it is there already. Linux on x86-64, root, debootstrap.

For each GPU, `wgtune bench --compile` goes to OUT/NAME.json, a line a shader, with the shaders of LoRA steps that run several dispatches as
one; a table of those that a run may choose, without the rungs of the ladders, goes to standard output as Markdown. With --compare nothing is
written: a shader that spills more than the file says is an error, and what differs otherwise is told, but steps are left out.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = "mesa-vulkan-drivers,mesa-drm-shim,libvulkan1"
# The driver, its kernel device, and what says which GPU that is.
GPUS = {
    "navi31": ("radeon", "amdgpu", {"AMDGPU_GPU_ID": "navi31"}),
    "navi21": ("radeon", "amdgpu", {"AMDGPU_GPU_ID": "navi21"}),
    "gfx1201": ("radeon", "amdgpu", {"AMDGPU_GPU_ID": "gfx1201"}),
    "strix1": ("radeon", "amdgpu", {"AMDGPU_GPU_ID": "strix1"}),
    "ga102": ("nouveau", "nouveau", {"NOUVEAU_CHIPSET": "172", "NVK_I_WANT_A_BROKEN_VULKAN_DRIVER": "1"}),
    "m1": ("asahi", "asahi", {}),
}
OPS = "bench --compile --device gpu --shapes 135m --tokens 256 --json".split()
# What is another where products take f16.
HALVES = [*OPS, "--matmul-precision", "high", "--filter", "matmul,attention"]
STEPS = [*OPS, "--filter", "LoRA training step"]


def made(debian):
    """The folder of such a Debian, made where it is not there."""
    if not (debian / "usr/share/vulkan/icd.d/radeon_icd.json").exists():
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "sid", str(debian)]
        subprocess.run(command + mirror(), check=True, stdout=subprocess.DEVNULL)
    return debian


def mirror():
    """Where the system's own packages come from."""
    for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt").glob("sources.list.d/*"))]:
        for word in file.read_text().split() if file.is_file() else []:
            if word.startswith("http") and word.rstrip("/").endswith("/debian"):
                return [word]
    return []


def compiled(name, options, debian):
    """What is told of every shader, or where they are compared, nothing."""
    driver, shim, settings = GPUS[name]
    libraries, loader = debian / "usr/lib/x86_64-linux-gnu", debian / "lib64/ld-linux-x86-64.so.2"
    icd = str(debian / f"usr/share/vulkan/icd.d/{driver}_icd.json")
    environment = os.environ | settings | {"MESA_SHADER_CACHE_DISABLE": "1", "VK_DRIVER_FILES": icd, "VK_ICD_FILENAMES": icd}
    # The Debian's own loader and libraries run the program, whatever the system's are.
    command = [loader, "--library-path", libraries, "--preload", libraries / f"lib{shim}_noop_drm_shim.so", options.wgtune]

    def run(arguments):
        ran = subprocess.run([*command, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
        if ran.returncode != 0:
            sys.exit(f"{name}: wgtune failed")
        return json.loads(ran.stdout)

    if options.compare:
        for arguments in (OPS, HALVES):
            run([*arguments, "--compare", options.out / f"{name}.json"])
        return None
    ops, halves, steps = run(OPS), run(HALVES), run(STEPS)

    def key(kernel):
        return [kernel["kernel"], kernel["shader"], kernel["constants"]]

    known = [key(kernel) for kernel in ops["kernels"]]
    others = [kernel for kernel in halves["kernels"] if key(kernel) not in known]
    groups = [kernel for kernel in steps["kernels"] if kernel["kernel"] == "group"]
    kernels = sorted(ops["kernels"] + others, key=lambda kernel: (kernel["kernel"], kernel["shader"]))
    return ops | {"kernels": kernels + groups, "steps": steps["steps"]}


def write(file, report):
    """A line a shader, without hashes, which say nothing."""
    for kernel in report["kernels"]:
        kernel["statistics"] = {key: value for key, value in kernel["statistics"].items() if "hash" not in key.lower()}
    lines = ",\n".join(json.dumps(kernel) for kernel in report["kernels"])
    head = json.dumps({key: value for key, value in report.items() if key != "kernels"})
    partial = file.with_suffix(".partial")
    partial.write_text(f'{head[:-1]}, "kernels": [\n{lines}\n]}}\n')
    partial.rename(file)


def table(reports):
    """Registers, instructions, and bytes of local memory or spills where there are any, by shader and GPU, of the first of its constants."""
    def cell(kernel):
        if kernel is None:
            return ""
        text = f"{kernel['registers']:.0f}, {kernel['instructions']:.0f}"
        spills = [f"{kernel[key]:.0f} {unit}" for key, unit in [("spills", "spilled"), ("scratch", "B local")] if kernel[key]]
        return f"**{text}, {', '.join(spills)}**" if spills else text

    first = {name: {} for name in reports}
    for name, report in reports.items():
        for kernel in report["kernels"]:
            if not kernel["kernel"].startswith(("ladder", "group")):
                first[name].setdefault(kernel["shader"], kernel)
    shaders = sorted({shader for of_one in first.values() for shader in of_one})
    print("| shader | " + " | ".join(reports) + " |")
    print("|---|" + "---|" * len(reports))
    for shader in shaders:
        print(f"| {shader} | " + " | ".join(cell(first[name].get(shader)) for name in reports) + " |")
    for name, report in reports.items():
        print(f"\n{name}: {report['device']['name'].strip()}, {report['device']['driver']}")
        groups = [kernel for kernel in report["kernels"] if kernel["kernel"] == "group"]
        spill = sum(1 for kernel in groups if kernel["spills"] or kernel["scratch"])
        most = max((kernel["registers"] or 0 for kernel in groups), default=0)
        print(f"{len(groups)} groups, {spill} of which spill, of at most {most:.0f} registers")
        for step in report["steps"]:
            print(f"{step['name']}: {step['dispatches']} dispatches")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wgtune", type=Path, default=Path("target/release/wgtune"), help="the program")
    parser.add_argument("--out", type=Path, default=Path("benches/results/compilers"), help="the folder of the files")
    parser.add_argument("--debian", type=Path, help="keep the Debian in this folder, or take the one that is there")
    parser.add_argument("--compare", action="store_true", help="compare with the files, and write none")
    parser.add_argument("gpus", nargs="*", metavar="NAME", help=f"one of {', '.join(GPUS)} (all)")
    options = parser.parse_args()
    unknown = [name for name in options.gpus if name not in GPUS]
    if unknown or platform.machine() != "x86_64":
        parser.error(f"{unknown[0]}; expected some of {', '.join(GPUS)}" if unknown else "expected an x86-64 machine")
    options.wgtune = options.wgtune.resolve()
    with tempfile.TemporaryDirectory() as folder:
        debian = made(options.debian or Path(folder) / "debian")
        reports = {name: compiled(name, options, debian) for name in options.gpus or GPUS}
    if not options.compare:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, report in reports.items():
            write(options.out / f"{name}.json", report)
        table(reports)


if __name__ == "__main__":
    main()
