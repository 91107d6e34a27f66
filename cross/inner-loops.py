"""Reads the kernels' assembly: an innermost loop that multiplies must not store to the stack.

    inner-loops.py FILE.s [CPU ...]

A loop here is a stretch from a label to a jump back to it with no other label between. Prints how many there are with which instruction, and exits with 1
when one of them stores to the stack, or when there is none to look at.

With names of CPUs (cortex-a76, neoverse-n1, ...) it prints what llvm-mca makes of each loop on them: multiply-adds a cycle, by LLVM's tables. That is a
model: no cache, no clock, and a table may be another core's.
"""
import collections
import os
import re
import subprocess
import sys

MULTIPLIES = re.compile(r"^(sdot|smull2?|smlal2?|smmla|fmla|v?fmadd\w*|vfmadd\w*|vpdpbusds?|vpmaddwd|vpmaddubsw)\b")
# A pointer that was spilled before the loop may be read in it; what is written in every round is a sum.
STORES = re.compile(r"^(st[rpu]\w*\s.*\[sp\b|v?mov\w*\s+%?[xyz]mm\d+, *-?\w*\(%rsp)")
LABEL = re.compile(r"^([.\w$]+):")
JUMP = re.compile(r"^(?:b\.?\w*|cbn?z|tbn?z|j\w+)\s+(?:.*,\s*)?([.\w$]+)$")


def loops(lines):
    label, body, function = None, [], ""
    for line in lines:
        line = line.strip()
        found = LABEL.match(line)
        if found:
            if not found[1].startswith((".L", "L")):
                function = found[1]
            label, body = found[1], []
            continue
        body.append(line)
        jump = JUMP.match(line)
        if jump and jump[1] == label:
            yield function, body
            body = []


# Multiply-adds of an AArch64 instruction; of a long one those of half a register.
MULTIPLY_ADDS = {"sdot": 16, "smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8, "fmla": 4}
ROUNDS = 100


def multiply_adds(body):
    adds = 0
    for line in body:
        name = line.split()[0] if line else ""
        # The long forms of 16-bit numbers have half as many.
        adds += MULTIPLY_ADDS.get(name, 0) // (2 if name.startswith("sml") and ".4s" in line else 1)
    return adds


def modelled(body, cpu):
    """Cycles of one round on `cpu`."""
    mca = os.environ.get("LLVM_MCA", "llvm-mca-19")
    text = "\n".join(line for line in body if not line.startswith(("//", ".")))
    command = [mca, "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", "-mattr=+dotprod", f"-iterations={ROUNDS}"]
    told = subprocess.run(command, input=text, text=True, capture_output=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", told)[1]) / ROUNDS


def main(path, cpus):
    seen, bad = collections.Counter(), []
    with open(path, encoding="utf-8") as file:
        for function, body in loops(file):
            kinds = {found[1] for found in map(MULTIPLIES.match, body) if found}
            # With assembly of our own, the comments around it are lines, too.
            stores = [line for line in body if STORES.match(line)]
            if kinds:
                seen[" ".join(sorted(kinds))] += 1
                adds = multiply_adds(body)
                if cpus and adds:
                    rates = (f"{cpu} {adds / modelled(body, cpu):.1f}" for cpu in cpus)
                    print(f"{function[-60:]}: {' '.join(sorted(kinds))}, {adds} multiply-adds a round; a cycle: {', '.join(rates)}")
                if stores:
                    bad.append(f"{function}: {len(stores)} stores to the stack in a loop with {', '.join(sorted(kinds))}: {stores[0]}")
    print(f"{path}: {sum(seen.values())} innermost loops: " + ", ".join(f"{n} with {kind}" for kind, n in sorted(seen.items())))
    for line in bad:
        print(line)
    if bad or not seen:
        sys.exit(1)


main(sys.argv[1], sys.argv[2:])
