/* Formats in ZIP containers: Office, OpenDocument, EPUB. The containers are made here, part by part. */
#include "tests/unit/extracting.h"
#include <minizip/zip.h>

#define OFFICE "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
#define TYPES(main)                                                                                   \
    "<Types><Override PartName='/x' ContentType='application/vnd.openxmlformats-officedocument." main \
    ".main+xml'/></Types>"
#define MAIN(path) \
    "<Relationships><Relationship Id='r1' Type='" OFFICE "officeDocument' Target='" path "'/></Relationships>"

struct part {
    const char *name, *text;
};

/* The container, in memory; entries up to one without a name. */
static struct str zip_of(const struct part *parts)
{
    char path[] = "/tmp/ragd-test-zip-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    zipFile z = zipOpen64(path, APPEND_STATUS_CREATE);
    assert_non_null(z);
    for (; parts->name; parts++) {
        zip_fileinfo info = {.dosDate = 0};
        assert_int_equal(zipOpenNewFileInZip(z, parts->name, &info, NULL, 0, NULL, 0, NULL, Z_DEFLATED, 9), ZIP_OK);
        assert_int_equal(zipWriteInFileInZip(z, parts->text, (unsigned)strlen(parts->text)), ZIP_OK);
        zipCloseFileInZip(z);
    }
    zipClose(z, NULL);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    char *bytes = arena_alloc(&arena, (size_t)st.st_size);
    assert_int_equal(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
    close(fd);
    unlink(path);
    return (struct str){bytes, (size_t)st.st_size};
}

#define ZIP(...) zip_of((const struct part[]){__VA_ARGS__, {NULL, NULL}})

static const char docx_mime[] = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
static const char pptx_mime[] = "application/vnd.openxmlformats-officedocument.presentationml.presentation";
static const char xlsx_mime[] = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

static struct str docx(const char *body)
{
    return ZIP({"[Content_Types].xml", TYPES("wordprocessingml.document")}, {"_rels/.rels", MAIN("word/document.xml")},
               {"word/document.xml", body},
               {"word/_rels/document.xml.rels",
                "<Relationships><Relationship Id='s' Type='" OFFICE "styles' Target='styles.xml'/>"
                "<Relationship Id='f' Type='" OFFICE "footnotes' Target='/word/footnotes.xml'/></Relationships>"},
               {"word/styles.xml",
                "<w:styles xmlns:w='w'><w:style w:type='paragraph' w:styleId='berschrift2'>"
                "<w:name w:val='heading 2'/></w:style><w:style w:type='paragraph' w:styleId='Mine'>"
                "<w:name w:val='Mine'/><w:basedOn w:val='berschrift2'/></w:style>"
                "<w:style w:type='paragraph' w:styleId='T'><w:name w:val='Title'/></w:style></w:styles>"},
               {"word/footnotes.xml",
                "<w:footnotes xmlns:w='w'><w:footnote w:type='separator' w:id='-1'><w:p><w:r><w:t>no</w:t></w:r></w:p>"
                "</w:footnote><w:footnote w:id='1'><w:p><w:r><w:t>See the log.</w:t></w:r></w:p></w:footnote>"
                "</w:footnotes>"});
}

static void test_docx(void **state)
{
    (void)state;
    struct str doc =
        docx("<w:document xmlns:w='w'><w:body><w:p><w:pPr><w:pStyle w:val='T'/></w:pPr><w:r><w:t>The </w:t></w:r>"
             "<w:r><w:t>Crane</w:t></w:r></w:p><w:p><w:r><w:t xml:space='preserve'>Lift "
             "</w:t></w:r><w:del><w:r><w:t>not</w:t>"
             "</w:r></w:del><w:r><w:t>slowly.</w:t><w:footnoteReference w:id='1'/></w:r></w:p>"
             "<w:p><w:pPr><w:pStyle w:val='Mine'/></w:pPr><w:r><w:t>Parts</w:t></w:r></w:p>"
             "<w:p><w:pPr><w:numPr/></w:pPr><w:r><w:t>hook</w:t><w:br/><w:t>rope</w:t></w:r></w:p>"
             "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>Load</w:t></w:r></w:p></w:tc><w:tc><w:p/></"
             "w:tc><w:tc><w:p><w:r><w:t>40</w:t>"
             "</w:r></w:p><w:p><w:r><w:t>tonnes</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
             "<w:p><w:r><w:t>End &amp; out.</w:t></w:r></w:p></w:body></w:document>");
    extracts(doc, "text/plain", "whatever.txt", docx_mime,
             "h1 The Crane\np Lift slowly.[1]\nh2 Parts\nli hook/rope\nrow Load | | 40 tonnes\np End & out.\n"
             "p [1] See the log.\n");
    assert_true(str_eqz(title_of(doc, "x"), "The Crane"));
    refuses(docx("<w:document xmlns:w='w'><w:body><w:p>"), "", "a.docx", "invalid_file", "word/document.xml");
}

static void test_xlsx(void **state)
{
    (void)state;
    struct str book = ZIP(
        {"[Content_Types].xml", TYPES("spreadsheetml.sheet")}, {"_rels/.rels", MAIN("xl/workbook.xml")},
        {"docProps/core.xml", "<p xmlns:dc='d'><dc:title>Stock</dc:title></p>"},
        {"xl/workbook.xml", "<workbook xmlns:r='r'><sheets><sheet name='Hall &amp; Yard' sheetId='7' r:id='r1'/>"
                            "<sheet name='Empty' sheetId='8' r:id='r9'/></sheets></workbook>"},
        {"xl/_rels/workbook.xml.rels",
         "<Relationships><Relationship Id='r1' Type='" OFFICE "worksheet' Target='worksheets/sheet1.xml'/>"
         "<Relationship Id='r2' Type='" OFFICE "sharedStrings' Target='sharedStrings.xml'/>"
         "<Relationship Id='r3' Type='" OFFICE "styles' Target='styles.xml'/></Relationships>"},
        {"xl/sharedStrings.xml",
         "<sst><si><t>Part</t></si><si><r><t>Bo</t></r><r><t>lt</t></r><rPh><t>no</t></rPh></si>"
         "<si><t>Since</t></si><si><t>Count</t></si></sst>"},
        {"xl/styles.xml", "<styleSheet><numFmts><numFmt numFmtId='170' formatCode='yyyy\\-mm'/></numFmts><cellStyleXfs>"
                          "<xf numFmtId='14'/></cellStyleXfs><cellXfs><xf numFmtId='0'/><xf numFmtId='170'/></cellXfs>"
                          "</styleSheet>"},
        {"xl/worksheets/sheet1.xml",
         "<worksheet><sheetData><row r='1'><c r='A1' t='s'><v>0</v></c><c r='B1' t='s'><v>3</v></c>"
         "<c r='C1' t='s'><v>2</v></c></row><row r='2'><c r='A2' t='s'><v>1</v></c>"
         "<c r='C2' s='1'><v>45292.5</v></c></row><row r='3'><c t='inlineStr'><is><t>Nut</t></is></c>"
         "<c><f>1+1</f><v>2</v></c><c t='b'><v>1</v></c><c t='str'><v>more</v></c></row><row "
         "r='4'/></sheetData></worksheet>"});
    extracts(book, "", "a.zip", xlsx_mime,
             "h2 Hall & Yard\nrow Part | Count | Since\nrow Part: Bolt | Since: 2024-01-01 12:00\n"
             "row Part: Nut | Count: 2 | Since: TRUE | more\nh2 Empty\n");
    assert_true(str_eqz(title_of(book, "x"), "Stock"));
    struct extracted x;
    const char *code;
    struct err e;
    assert_int_equal(extract(&arena, book, STR(""), STR("x"), &x, &code, &e), 0);
    assert_int_equal(x.pages, 2);
    assert_int_equal(x.block[1].page, 1);
    assert_int_equal(x.block[4].page, 2);
}

/* Far to the right: nothing is left out but most of a gap. */
static void test_xlsx_columns(void **state)
{
    (void)state;
    extracts(ZIP({"[Content_Types].xml", TYPES("spreadsheetml.sheet")}, {"_rels/.rels", MAIN("xl/workbook.xml")},
                 {"xl/workbook.xml", "<workbook xmlns:r='r'><sheets><sheet name='S' r:id='r1'/></sheets></workbook>"},
                 {"xl/_rels/workbook.xml.rels",
                  "<Relationships><Relationship Id='r1' Type='" OFFICE "worksheet' Target='s.xml'/></Relationships>"},
                 {"xl/s.xml",
                  "<worksheet><sheetData><row><c r='A1'><v>1</v></c><c r='C1'><v>2</v></c><c r='ALM1'><v>3</v></c>"
                  "<c r='XFD1' t='str'><v>last</v></c></row></sheetData></worksheet>"}),
             "", "", xlsx_mime, "h2 S\nrow 1 | | 2 | | | | | | | | | 3 | | | | | | | | | last\n");
}

static void test_pptx(void **state)
{
    (void)state;
    struct str deck = ZIP(
        {"[Content_Types].xml", TYPES("presentationml.presentation")}, {"_rels/.rels", MAIN("ppt/presentation.xml")},
        {"ppt/presentation.xml", "<p:presentation xmlns:p='p' xmlns:r='r'><p:sldIdLst><p:sldId id='256' r:id='b'/>"
                                 "<p:sldId id='257' r:id='a'/></p:sldIdLst></p:presentation>"},
        {"ppt/_rels/presentation.xml.rels", "<Relationships><Relationship Id='a' Type='" OFFICE "slide' "
                                            "Target='slides/slide1.xml'/><Relationship Id='b' Type='" OFFICE "slide' "
                                            "Target='slides/slide2.xml'/></Relationships>"},
        {"ppt/slides/slide1.xml",
         "<p:sld xmlns:p='p' xmlns:a='a'><p:graphicFrame><a:tbl><a:tr><a:tc><a:txBody><a:p><a:r>"
         "<a:t>x</a:t></a:r></a:p></a:txBody></a:tc><a:tc><a:p><a:r><a:t>y</a:t></a:r></a:p>"
         "</a:tc></a:tr></a:tbl></p:graphicFrame></p:sld>"},
        {"ppt/slides/slide2.xml",
         "<p:sld xmlns:p='p' xmlns:a='a'><p:sp><p:nvPr><p:ph type='ctrTitle'/></p:nvPr><a:p><a:r>"
         "<a:t>Start</a:t></a:r></a:p></p:sp><p:sp><p:nvPr><p:ph idx='1'/></p:nvPr><a:p><a:r>"
         "<a:t>one</a:t></a:r></a:p><a:p><a:r><a:t>two</a:t></a:r></a:p></p:sp><p:sp><p:nvPr>"
         "<p:ph type='sldNum'/></p:nvPr><a:p><a:t>9</a:t></a:p></p:sp></p:sld>"},
        {"ppt/slides/_rels/slide2.xml.rels", "<Relationships><Relationship Id='n' Type='" OFFICE "notesSlide' "
                                             "Target='../notesSlides/n.xml'/></Relationships>"},
        {"ppt/notesSlides/n.xml", "<p:notes xmlns:p='p' xmlns:a='a'><p:sp><p:ph type='sldImg'/></p:sp><p:sp>"
                                  "<p:ph type='body'/><a:p><a:t>Say hello.</a:t></a:p></p:sp></p:notes>"});
    extracts(deck, "", "", pptx_mime, "h2 Start\nli one\nli two\np Say hello.\nrow x | y\n");
    struct extracted x;
    const char *code;
    struct err e;
    assert_int_equal(extract(&arena, deck, STR(""), STR("x"), &x, &code, &e), 0);
    assert_int_equal(x.pages, 2);
    assert_int_equal(x.block[3].page, 1);
    assert_int_equal(x.block[4].page, 2);
    assert_true(str_eqz(x.title, "Start"));
}

#define ODF "application/vnd.oasis.opendocument."

static void test_odf(void **state)
{
    (void)state;
    extracts(ZIP({"mimetype", ODF "text"},
                 {"content.xml",
                  "<d xmlns:t='t' xmlns:b='b'><t:h t:outline-level='1'>Crane</t:h><t:p>Lift<t:s/>slowly<t:note>"
                  "<t:note-citation>1</t:note-citation><t:note-body><t:p>or not</t:p></t:note-body></t:note>.</t:p>"
                  "<t:list><t:list-item><t:p>hook</t:p></t:list-item></t:list><t:tracked-changes><t:p>gone</t:p>"
                  "</t:tracked-changes><b:table><b:table-row><b:table-cell><t:p>a</t:p></b:table-cell><b:table-cell>"
                  "<t:p>b</t:p></b:table-cell></b:table-row></b:table></d>"},
                 {"meta.xml", "<m xmlns:dc='d'><dc:title>Manual</dc:title></m>"}),
             "", "a.odt", ODF "text", "h1 Crane\np Lift slowly (or not).\nli hook\nrow a | b\n");
    extracts(ZIP({"mimetype", ODF "spreadsheet"},
                 {"content.xml",
                  "<d xmlns:t='t' xmlns:b='b'><b:table b:name='Stock'><b:table-row><b:table-cell><t:p>Part</t:p>"
                  "</b:table-cell><b:table-cell><t:p>Count</t:p></b:table-cell></b:table-row><b:table-row>"
                  "<b:table-cell b:number-columns-repeated='2'><t:p>7</t:p></b:table-cell><b:table-cell "
                  "b:number-columns-repeated='1000000'/></b:table-row></b:table></d>"}),
             "", "a.ods", ODF "spreadsheet", "h2 Stock\nrow Part | Count\nrow Part: 7 | Count: 7\n");
    extracts(
        ZIP({"mimetype", ODF "presentation"},
            {"content.xml", "<d xmlns:t='t' xmlns:w='w' xmlns:p='p'><w:page><w:frame p:class='title'><t:p>One</t:p>"
                            "</w:frame><w:frame><t:p>text</t:p></w:frame></w:page></d>"}),
        "", "a.odp", ODF "presentation", "h2 One\np text\n");
    static const char list[] =
        "<m:manifest xmlns:m='m'><m:file-entry m:full-path='a/' m:media-type='" ODF "spreadsheet'/>"
        "<m:file-entry m:full-path='/' m:media-type='" ODF "text'/></m:manifest>";
    extracts(ZIP({"META-INF/manifest.xml", list},
                 {"content.xml", "<o:d xmlns:o='o' xmlns:text='t'><text:p>No mark.</text:p></o:d>"}),
             "", "a.odt", ODF "text", "p No mark.\n");
    refuses(ZIP({"mimetype", ODF "text"}, {"content.xml", "?"}, {"META-INF/manifest.xml", "<x><encryption-data/></x>"}),
            "", "a.odt", "encrypted", "password");
}

static void test_epub(void **state)
{
    (void)state;
    extracts(ZIP({"mimetype", "application/epub+zip"},
                 {"META-INF/container.xml", "<c><rootfiles><rootfile full-path='OPS/book.opf'/></rootfiles></c>"},
                 {"OPS/book.opf",
                  "<package xmlns:dc='d'><metadata><dc:title>Tides</dc:title></metadata><manifest>"
                  "<item id='two' href='two%20b.xhtml' media-type='application/xhtml+xml'/>"
                  "<item id='one' href='../one.xhtml#x' media-type='application/xhtml+xml'/></manifest>"
                  "<spine><itemref idref='one'/><itemref idref='two'/><itemref idref='lost'/></spine></package>"},
                 {"one.xhtml", "<html><head><title>no</title></head><body><h1>One</h1><p>first</p></body></html>"},
                 {"OPS/two b.xhtml", "<html><body><p>second</p></body></html>"}),
             "", "a.epub", "application/epub+zip", "h1 One\np first\np second\n");
}

static void test_containers(void **state)
{
    (void)state;
    refuses(ZIP({"a.txt", "text"}), "", "a.docx", "unsupported_file", "unpack");
    refuses(STR("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "", "", "invalid_file", "cut off");
    refuses(ZIP({"[Content_Types].xml", TYPES("wordprocessingml.document")}), "", "", "invalid_file", "damaged");
    refuses(ZIP({"[Content_Types].xml", TYPES("wordprocessingml.document")}, {"_rels/.rels", MAIN("../../etc/passwd")}),
            "", "", "invalid_file", "where its content is");
    refuses(STR("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....E\0n\0c\0r\0y\0p\0t\0e\0d\0P\0a\0c\0k\0a\0g\0e\0"), "", "a.docx",
            "encrypted", "password");
}

static void ends(struct str bytes)
{
    struct extracted x;
    const char *code = NULL;
    struct err e = {0};
    if (extract(&arena, bytes, STR(""), STR("a.docx"), &x, &code, &e) != 0)
        assert_non_null(code);
}

/* What unfolds to far more than it may is refused while it does. */
static void test_bombs(void **state)
{
    (void)state;
    struct str white = repeated("<w:document>", "                                ", 1 << 20, "</w:document>");
    struct str bomb = docx(white.p);
    assert_true(bomb.n < 100000);
    refuses(bomb, "", "a.docx", "invalid_file", "unfolds");
    refuses(docx(repeated("", "<w:p>", 5000, "x").p), "", "", "invalid_file", "nested too deeply");
    refuses(docx("<!DOCTYPE x [<!ENTITY a 'aaaaaaaa'>]><w:document>&a;</w:document>"), "", "", "invalid_file",
            "entities");
    struct str good = docx("<w:document xmlns:w='w'><w:p><w:t>text</w:t></w:p></w:document>");
    char *bad = arena_alloc(&arena, good.n);
    memcpy(bad, good.p, good.n);
    for (size_t i = 0; i < good.n; i += 3) { /* no byte of it may be trusted, nor its length */
        bad[i] ^= 0x55;
        ends((struct str){bad, good.n});
        bad[i] ^= 0x55;
        ends((struct str){bad, i});
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_docx, begin, end),
        cmocka_unit_test_setup_teardown(test_xlsx, begin, end),
        cmocka_unit_test_setup_teardown(test_xlsx_columns, begin, end),
        cmocka_unit_test_setup_teardown(test_pptx, begin, end),
        cmocka_unit_test_setup_teardown(test_odf, begin, end),
        cmocka_unit_test_setup_teardown(test_epub, begin, end),
        cmocka_unit_test_setup_teardown(test_containers, begin, end),
        cmocka_unit_test_setup_teardown(test_bombs, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
