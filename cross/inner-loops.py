"""Reads the kernels' assembly: an innermost loop that multiplies must not store to the stack.

    inner-loops.py FILE.s

A loop here is a stretch from a label to a jump back to it with no other label between. Prints how many there are with which instruction, and exits with 1
when one of them stores to the stack, or when there is none to look at.
"""
import collections
import re
import sys

MULTIPLIES = re.compile(r"^(sdot|smlal2?|smmla|fmla|v?fmadd\w*|vfmadd\w*|vpdpbusds?|vpmaddwd|vpmaddubsw)\b")
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


def main(path):
    seen, bad = collections.Counter(), []
    with open(path, encoding="utf-8") as file:
        for function, body in loops(file):
            kinds = {found[1] for found in map(MULTIPLIES.match, body) if found}
            # With assembly of our own, the comments around it are lines, too.
            stores = [line for line in body if STORES.match(line)]
            if kinds:
                seen[" ".join(sorted(kinds))] += 1
                if stores:
                    bad.append(f"{function}: {len(stores)} stores to the stack in a loop with {', '.join(sorted(kinds))}: {stores[0]}")
    print(f"{path}: {sum(seen.values())} innermost loops: " + ", ".join(f"{n} with {kind}" for kind, n in sorted(seen.items())))
    for line in bad:
        print(line)
    if bad or not seen:
        sys.exit(1)


main(sys.argv[1])
