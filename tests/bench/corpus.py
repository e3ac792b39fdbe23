"""Realistic text for the benchmarks: what Debian 12 says about its packages, and files of its manuals. Everything comes
through apt-get into a folder that is kept (build/retrieval), and the same packages give the same corpus."""
import gzip
import pathlib
import re
import shutil
import subprocess

import retrieval_sets

MANUALS = ["debian-policy", "debian-reference-en", "developers-reference", "debian-faq", "maint-guide"]
SMALL = 2000  # bytes of a small document
LARGEST = 600_000  # of a PDF: those above take minutes in Python
SPARE = 104729  # a prime: steps through the descriptions in an order that repeats late


def descriptions(root):
    """[(package, short, long)] of all packages, each long description once; in the order of their hashes."""
    lists = root / "lists"
    if not list(lists.glob("*_i18n_Translation-en")):
        retrieval_sets.apt(root, "update")
    found = {}
    for file in sorted(lists.glob("*_i18n_Translation-en")):
        for match in re.finditer(r"Package: (\S+)\n(?:\S.*\n)*?Description-en: (.*)\n((?: .*\n)*)", file.read_text()):
            long = re.sub(r"(?m)^ \.?", "", match[3]).strip()
            if 80 <= len(long) <= 4000:
                found.setdefault(retrieval_sets.digest(long), (match[1], match[2].strip(), long))
    return [found[key] for key in sorted(found)]


def chunks(root, count):
    """`count` passages: the descriptions, and where these end, the first paragraph of one with the last of another."""
    known = descriptions(root)
    texts = [long for _, _, long in known[:count]]
    for i in range(count - len(texts)):
        one, two = known[i % len(known)], known[(i + 1) * SPARE % len(known)]
        texts.append("\n\n".join((one[2].split("\n\n")[0], two[2].split("\n\n")[-1])) + f"\n\n{i}")
    return texts


def queries(root, count):
    """Short descriptions of three words or more: what somebody types who looks for such a package."""
    return [short for _, short, _ in reversed(descriptions(root)) if len(short.split()) >= 3][:count]


def small_documents(root, count):
    """Texts of about 2 KB, all different: descriptions one after the other."""
    known, texts, at = descriptions(root), [], 0
    for i in range(count):
        text = f"Document {i}\n\n"
        while len(text) < SMALL:
            text += known[at % len(known)][2] + "\n\n"
            at += 1
        texts.append(text[:SMALL])
    return texts


def as_docx(title, text, path):
    import docx

    document = docx.Document()
    document.add_heading(title, 1)
    for paragraph in text.split("\n"):
        document.add_paragraph(paragraph)
    document.save(path)


def files(root, folder, count):
    """`count` files in `folder`: pages of the manuals as HTML, their books as PDF, and, since no package carries any,
    their sections as DOCX. Of each 20 files 12 are HTML and 8 DOCX; the books come on top, each once."""
    tree = root / "manuals"
    if not tree.exists():
        retrieval_sets.apt(root, "update")
        part = tree.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        retrieval_sets.apt(root, "download", *MANUALS, cwd=part)
        for package in sorted(part.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, part], check=True)
        part.rename(tree)
    folder.mkdir()
    books = [p for p in sorted(tree.rglob("*.pdf*")) if p.is_file() and not p.is_symlink() and p.stat().st_size <= LARGEST]
    for i, book in enumerate(books):
        data = book.read_bytes()
        (folder / f"book{i}.pdf").write_bytes(gzip.decompress(data) if book.suffix == ".gz" else data)
    pages, sections, seen = [], [], set()
    for page in sorted(tree.rglob("*.html")):
        text = page.read_text(errors="replace") if page.is_file() else ""
        if not text or text in seen:
            continue
        seen.add(text)
        reader = retrieval_sets.Sections()
        reader.feed(text)
        reader.flush()
        pages.append(page)
        sections += reader.found
    pages.sort(key=lambda p: retrieval_sets.digest(p.name))
    for i in range(min(count * 12 // 20, len(pages))):
        shutil.copy(pages[i], folder / f"page{i}.html")
    for i in range(min(count * 8 // 20, len(sections))):
        as_docx(*sections[i], folder / f"section{i}.docx")
    return sorted(folder.iterdir(), key=lambda p: retrieval_sets.digest(p.name))


def kinds(paths):
    """'3 pdf, 120 html, ...'"""
    names = [pathlib.Path(p).suffix[1:] for p in paths]
    return ", ".join(f"{names.count(k)} {k}" for k in sorted(set(names)))
