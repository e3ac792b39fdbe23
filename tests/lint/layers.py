#!/usr/bin/python3
"""Checks every #include of the product against layers.txt: who may include what."""
import os
import re
import subprocess
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
GENERATED = {"version.h"}


def read_rules(path):
    rules = {}
    for line in open(path):
        line = line.split("#")[0].strip()
        if line:
            who, _, allowed = line.partition(":")
            rules[who.strip()] = allowed.split()
    return rules


def folder_rule(rules, path):
    """The entry for the deepest folder that holds the file."""
    folder = os.path.dirname(path)
    while folder and folder not in rules:
        folder = os.path.dirname(folder)
    return folder


def allowed(rules, path, target):
    folder = folder_rule(rules, path)
    may = ["common", *rules[folder], *rules.get(path, [])]
    return os.path.dirname(target) == folder or any(target == m or target.startswith(m + "/") for m in may)


def main():
    rules = read_rules(os.path.join(os.path.dirname(__file__), "layers.txt"))
    top = sorted({r.split("/")[0] for r in rules})
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *top],
                           check=True, capture_output=True, text=True).stdout.split()
    bad = []
    for path in (f for f in files if f.endswith((".c", ".h"))):
        if not folder_rule(rules, path):
            bad.append(f"{path}: no layer in layers.txt")
            continue
        for target in INCLUDE.findall(open(path).read()):
            if target in GENERATED:
                continue
            if not os.path.exists(target):
                bad.append(f'{path}: "{target}" is not a path from the top of the tree')
            elif not allowed(rules, path, target):
                bad.append(f'{path}: may not include "{target}"')
    print("\n".join(bad), end="\n" if bad else "")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
