"""PDF documents, written by hand: just enough of the format for what a test is about."""

import zlib


class Pdf:
    """Objects, numbered from 1; `catalog` is the first."""

    def __init__(self):
        self.objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
        self.kids = []
        self.info = self.encrypt = None

    def add(self, body, stream=None, filters=()):
        if stream is not None:
            names = " ".join(f"/{f}" for f in filters)
            body = f"<< /Length {len(stream)} /Filter [{names}] >>".encode() + b"\nstream\n" + stream + b"\nendstream"
        self.objects.append(body if isinstance(body, bytes) else body.encode("latin-1"))
        return len(self.objects)

    def page(self, content, filters=()):
        """A page whose content stream is given as it stands in the file."""
        stream = self.add(None, content, filters)
        font = "<< /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >> >>"
        self.kids.append(self.add(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {stream} 0 R"
                                  f" /Resources << /Font {font} >> >>"))

    def text_page(self, *paragraphs):
        """Each paragraph is a list of lines."""
        out, y = [], 780
        for lines in paragraphs:
            for line in lines:
                text = line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
                out.append(f"BT /F1 12 Tf 72 {y} Td ({text}) Tj ET")
                y -= 14
            y -= 28
        self.page(zlib.compress("\n".join(out).encode("cp1252")), ["FlateDecode"])

    def bytes(self, title=None):
        if title:
            self.info = self.add(f"<< /Title ({title}) >>")
        kids = " ".join(f"{k} 0 R" for k in self.kids)
        self.objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(self.kids)} >>".encode()
        out, offsets = bytearray(b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n"), []
        for i, body in enumerate(self.objects, 1):
            offsets.append(len(out))
            out += f"{i} 0 obj\n".encode() + body + b"\nendobj\n"
        xref = len(out)
        out += f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n".encode()
        out += b"".join(f"{at:010} 00000 n \n".encode() for at in offsets)
        trailer = f"/Size {len(offsets) + 1} /Root 1 0 R"
        if self.info:
            trailer += f" /Info {self.info} 0 R"
        if self.encrypt:
            trailer += f" /Encrypt {self.encrypt} 0 R /ID [<00112233445566778899aabbccddeeff> <00>]"
        out += f"trailer\n<< {trailer} >>\nstartxref\n{xref}\n%%EOF\n".encode()
        return bytes(out)


def encrypted():
    """Locked by a user's password: no key that a reader tries fits."""
    pdf = Pdf()
    pdf.text_page(["secret"])
    pdf.encrypt = pdf.add("<< /Filter /Standard /V 2 /R 3 /Length 128 /P -44 /O <%s> /U <%s> >>" % ("ab" * 32, "cd" * 32))
    return pdf.bytes()


def scanned(pages=2):
    pdf = Pdf()
    for _ in range(pages):
        pdf.page(b"0 0 100 100 re f")
    return pdf.bytes()


def bomb(inner, megabytes=1024):
    """A content stream of as many megabytes of `inner`, compressed twice."""
    compressor = zlib.compressobj(9)
    head = compressor.compress(b"") + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(inner * (2**20 // len(inner))) + compressor.flush(zlib.Z_FULL_FLUSH)
    pdf = Pdf()
    pdf.text_page(["before"])
    pdf.page(zlib.compress(head + block * megabytes + compressor.flush(), 9), ["FlateDecode", "FlateDecode"])
    return pdf.bytes()
