"""Builds the retrieval sets: a folder of text files and golden.ndjson, as `ragd eval` reads it. The same packages give the
same sets: what is taken is chosen by a hash, not by chance."""
import hashlib
import html.parser
import json
import re
import shutil
import subprocess

SHORTEST = 200  # characters of a document
BOOKS = ["debian-policy", "debian-reference-en", "developers-reference"]


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def apt(root, *args, cwd=None):
    """apt with lists of its own: those of the system stay as they are, and need not hold descriptions. It downloads to `cwd`,
    or `root`."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    options = [f"Dir::State::lists={root}/lists", f"Dir::Cache={root}/cache", "Acquire::Languages=en",
               "Acquire::GzipIndexes=false", "APT::Sandbox::User=root"]  # fmt: skip
    subprocess.run(["apt-get", "-qq", *[a for o in options for a in ("-o", o)], *args], cwd=cwd or root, check=True)


def write(folder, documents, questions, n_documents, n_questions):
    """documents: {name: text}; questions: {query: names that answer it}."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "documents").mkdir(parents=True)
    kept = sorted(documents, key=digest)[:n_documents]
    for name in kept:
        (part / "documents" / f"{name}.txt").write_text(documents[name] + "\n")
    asked = []
    for query in sorted(questions, key=digest):
        right = sorted(f"{folder}/documents/{name}.txt" for name in questions[query] if name in set_of(kept))
        if right and len(asked) < n_questions:
            asked.append({"id": digest(query)[:12], "query": query, "relevant": right})
    (part / "golden.ndjson").write_text("".join(json.dumps(q) + "\n" for q in asked))
    part.rename(folder)


def set_of(names, cache={}):
    if cache.get("of") is not names:
        cache.update(of=names, set=set(names))
    return cache["set"]


# ---- packages: the short description finds the long one ----


def packages(root, folder, n_documents, n_questions):
    apt(root, "update")
    documents, questions, seen = {}, {}, {}
    for file in sorted((root / "lists").glob("*_i18n_Translation-en")):
        for stanza in file.read_text().split("\n\n"):
            match = re.match(r"Package: (\S+)\n(?:.*\n)*?Description-en: (.*)\n((?: .*\n?)*)", stanza)
            if not match or match[1] in documents:
                continue
            name, short, long = match[1], match[2].strip(), re.sub(r"(?m)^ \.?", "", match[3]).strip()
            body = digest(long)
            if len(long) < SHORTEST or len(short.split()) < 3 or body in seen or short.lower() in long.lower():
                continue
            seen[body] = name
            documents[name] = long
            questions.setdefault(short, set()).add(name)
    write(folder, documents, questions, n_documents, n_questions)


# ---- books: the heading finds its section ----


class Sections(html.parser.HTMLParser):
    """(heading, text) of everything between two headings; menus, code and footers are left out."""

    SKIP = {"script", "style", "nav", "head", "footer"}

    def __init__(self):
        super().__init__()
        self.found, self.skip, self.heading, self.text, self.inside = [], 0, [], [], False

    def handle_starttag(self, tag, attrs):
        self.skip += tag in self.SKIP
        if re.fullmatch("h[1-6]", tag):
            self.flush()
            self.inside = True
        self.add(" ")

    def handle_endtag(self, tag):
        self.skip -= tag in self.SKIP
        if re.fullmatch("h[1-6]", tag):
            self.inside = False
        self.add("\n" if tag in ("p", "li", "pre", "dd", "dt", "tr") else " ")

    def handle_data(self, data):
        self.add(data)

    def add(self, data):
        if not self.skip:
            (self.heading if self.inside else self.text).append(data)

    def flush(self):
        heading, text = "".join(self.heading), "".join(self.text)
        heading = re.sub(r"^[\s\d.A-Z]*\d[\d.]*\s+|^(Chapter|Appendix)\s\S+\s+|[¶#]", "", " ".join(heading.split()))
        text = re.sub(r"[ \t]+", " ", re.sub(r"\s*\n\s*", "\n", text)).strip()
        if heading and len(text) >= SHORTEST:
            self.found.append((heading.strip(), text))
        self.heading, self.text = [], []


def books(root, folder, n_documents, n_questions):
    apt(root, "update")
    tree = root / "books"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    apt(root, "download", *BOOKS)
    documents, questions, seen = {}, {}, set()
    for package in sorted(root.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
    for page in sorted(tree.rglob("*.html")):
        if not page.is_file() or page.is_symlink():
            continue
        reader = Sections()
        reader.feed(page.read_text(errors="replace"))
        reader.flush()
        for heading, text in reader.found:
            if len(heading.split()) < 2 or digest(text) in seen:
                continue
            seen.add(digest(text))
            name = f"s{digest(text)[:16]}"
            documents[name] = text
            questions.setdefault(heading, set()).add(name)
    write(folder, documents, questions, n_documents, n_questions)


SETS = {"packages": packages, "books": books}
