#!/usr/bin/python3
"""Checks that a function which calls something marked `suspends`, directly or through a member of a struct, carries
the mark itself, fiber entry points included. A reader then sees at every call where the world may change.

A member's name counts when every function pointer of that name in the tree is marked: then `x->name(` is clear."""
import os
import re
import subprocess
import sys

NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", re.M)
POINTER = re.compile(r"(?:^|[;{}(,])([^;{}(),]*)\(\s*\*\s*(\w+)\s*\)\s*\(", re.M)
FUNCTION = re.compile(r"(\w+)\s*\(")


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def top_level(text):
    """(head, body, line) of each declaration or definition outside of braces; a declaration's body is None."""
    depth = start = 0
    for i, c in enumerate(text):
        if c == "{":
            if depth == 0:
                head, open_at = text[start:i], i
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0:
                yield head, text[open_at:i + 1], text.count("\n", 0, open_at)
                start = i + 1
        elif c == ";" and depth == 0:
            yield text[start:i], None, text.count("\n", 0, i)
            start = i + 1


def function_name(head):
    """The function that a top-level head declares, or None (a struct, a variable, a typedef)."""
    if "=" in head or re.match(r"\s*typedef\b", head):
        return None
    head = re.sub(r"__attribute__\s*\(\(.*?\)\)", "", head, flags=re.S)
    found = FUNCTION.search(head)
    return found.group(1) if found else None


def main():
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", "master", "worker"],
                           check=True, capture_output=True, text=True).stdout.split()
    files = [f for f in files if f.endswith((".c", ".h")) and os.path.exists(f)]
    texts = {f: DIRECTIVE.sub(blank, NOT_CODE.sub(blank, open(f).read())) for f in files}
    public, local, pointers = set(), {f: set() for f in files}, {True: set(), False: set()}
    for f, text in texts.items():
        for before, name in POINTER.findall(text):
            pointers["suspends" in before.split()].add(name)
        for head, _, _ in top_level(text):
            name = function_name(head)
            if name and re.search(r"\bsuspends\b", head) and not re.match(r"[^(]*\(\s*\*", head):
                (local[f] if re.search(r"\bstatic\b", head) else public).add(name)
    members = pointers[True] - pointers[False]
    bad = []
    for f, text in texts.items():
        marked = public | local[f]
        for head, body, line in top_level(text):
            name = function_name(head)
            if not body or not name or name in marked:
                continue
            calls = set(re.findall(r"(?<![\w.>])(\w+)\s*\(", body)) & marked
            calls |= {"->" + c for c in re.findall(r"(?:->|\.)\s*(\w+)\s*\(", body) if c in members}
            if calls:
                bad.append(f"{f}:{line + 1}: {name}() calls {', '.join(sorted(calls))} and is not marked `suspends`")
    print("\n".join(bad), end="\n" if bad else "")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
