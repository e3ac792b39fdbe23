#include "tests/unit/extracting.h"

static void test_markdown(void **state)
{
    (void)state;
    extracts(sample("guide.md"), "", "guide.md", "text/markdown",
             "h1 Operating the Harbour Crane\n"
             "p The crane lifts containers of up to forty tonnes. Read this guide before the first shift.\n"
             "h2 Before you start\n"
             "li Check the wind: above 72 km/h the crane stays locked.\n"
             "li Walk around the base.\n"
             "li Look for loose bolts.\n"
             "li Look for oil.\n"
             "p Never stand below a load. This rule has no exceptions.\n"
             "h2 Controls\n"
             "p Press the green button, then pull the lever. See the appendix for wiring./Photograph of the lever\n"
             "row Lever | Effect\n"
             "row up | lifts\n"
             "row down | lowers\n"
             "code int lift(int tonnes)/{/    return tonnes <= 40;/}\n"
             "p Centred notice & warning\n"
             "h3 Emergency stop\n"
             "p Hit the red button. The brake closes within 0.3 s.\n");
    assert_true(str_eqz(title_of(sample("guide.md"), "guide.md"), "Operating the Harbour Crane"));
    assert_true(str_eqz(title_of(STR("+++\ntitle = 'TOML'\n+++\nbody"), "x.md"), "TOML"));
    assert_true(str_eqz(title_of(STR("---\nno end of front matter\n"), "x.md"), ""));
    extracts(STR("text\n---\n\n* * *\n"), "text/markdown", "", "text/markdown", "h2 text\n");
}

static void test_html(void **state)
{
    (void)state;
    extracts(sample("page.html"), "text/html", "page.html", "text/html",
             "h1 Tides and moorings\n"
             "p High water comes every 12 h 25 min — twice a day./Springs follow the full moon.\n"
             "p An unclosed paragraph, with bold and misnested text.\n"
             "h2 Lines\n"
             "li Bow line\n"
             "li Stern line\n"
             "li of nylon\n"
             "row Place | Depth\n"
             "row Quay 1 | 4.5 m\n"
             "code for (line of lines)/    tie(line);\n"
             "p Loose text chart of the bay in a div\n");
    assert_true(str_eqz(title_of(sample("page.html"), "x"), "Tides & moorings"));
    assert_true(str_eqz(title_of(STR("<html><h1>Only <i>this</i></h1>"), "x"), "Only this"));
    extracts(STR("<html><h2>Part<a class='headerlink' href='#p'>\xc2\xb6</a></h2>"), "", "", "text/html", "h2 Part\n");
    /* a page of navigation only is better than nothing */
    extracts(STR("<html><nav><a>Home</a></nav></html>"), "", "", "text/html", "p Home\n");
    /* found by its content, whatever it is called */
    extracts(STR("<!-- x --> <HTML><p>a<p>b"), "", "notes", "text/html", "p a\np b\n");
    extracts(STR("<?xml version='1.0'?><html><p>a</p></html>"), "text/plain", "a.txt", "text/html", "p a\n");
    extracts(STR("<html><body>a&#0;b&#x7f;c&#xfeff;d</body>"), "", "", "text/html",
             "p a\xef\xbf\xbd"
             "bcd\n");
}

static void test_plain(void **state)
{
    (void)state;
    extracts(sample("notes.rst"), "", "notes.rst", "text/plain",
             "h1 Harbour notes\n"
             "p The pilot boards at the fairway buoy. Speed is at most 6 knots.\n"
             "h2 Moorings\n"
             "p Two lines forward, two lines aft.\n");
    extracts(sample("manpage.txt"), "", "crane.1", "text/plain",
             "p CRANE(1)                     User Commands                     CRANE(1)\n"
             "h2 NAME\n"
             "p        crane - lift a container\n"
             "h2 SYNOPSIS\n"
             "p        crane [--up|--down] TONNES\n"
             "h2 DESCRIPTION\n"
             "p        The command talks to the controller. It waits until the load hangs/       still, then it "
             "reports the position.\n");
    extracts(sample("overstrike.txt"), "", "ls.1", "text/plain", "h2 NAME\np        ls - list files\n");
    extracts(sample("source.py"), "", "source.py", "text/x-python",
             "code # Adds two numbers./def add(a, b):/    return a + b\n"
             "code print(add(1, 2))\n");
    extracts(STR("one\r\ntwo\r\n\r\n\r\nthree"), "text/plain", "", "text/plain", "p one/two\np three\n");
    extracts(STR("a\x01"
                 "b\x7f"
                 "c\xc2\x85"
                 "d"),
             "", "", "text/plain", "p abcd\n");
    extracts(STR("a\n\n\x01\x02\n\nb"), "", "", "text/plain", "p a\np b\n");
    extracts(STR("\fone\fChapter\vtwo \f end\n\f\nb\f\n\fc\n\n\f\n"), "", "", "text/plain",
             "p one Chapter two  end\np b/c\n");
    extracts(STR("one\fChapter\vtwo"), "", "a.md", "text/markdown", "p one Chapter two\n");
    refuses(STR("\x01\n"), "", "", "empty_file", "no text");
    extracts(STR("ID3 tags are explained here."), "", "", "text/plain", "p ID3 tags are explained here.\n");
}

/* Names that pages and mails use, and the C library does not know or takes for less. */
static void test_names_of_charsets(void **state)
{
    static const struct {
        const char *label, *bytes, *outline;
    } of[] = {
        {"x-sjis", "\x8d\x60", "p 港\n"},      {"ks_c_5601-1987", "\xc7\xd7\xb1\xb8", "p 항구\n"},
        {"windows-949", "\x8f\x4f", "p 뢔\n"}, {"gb2312", "\xe9\x46", "p 镕\n"},
        {"chinese", "\xb8\xdb", "p 港\n"},     {"x-euc-jp", "\xb9\xc1", "p 港\n"},
        {"x-cp1251", "\xe3\xeb", "p гл\n"},    {"iso-8859-8-i", "\xf9\xec", "p של\n"},
        {"x-x-big5", "\xb4\xe4", "p 港\n"},    {"koi", "\xc7\xcc", "p гл\n"},
    };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        char mime[80];
        snprintf(mime, sizeof mime, "text/plain; charset=%s", of[i].label);
        extracts(str_of(of[i].bytes), mime, "", "text/plain", of[i].outline);
    }
    (void)state;
}

static void test_charsets(void **state)
{
    (void)state;
    static const char german[] = "p Liegeplätze\np Die Wassertiefe beträgt fünfzehn Meter – genug für große Schiffe.\n";
    static const char english[] = "p Mooring plan\np The depth is fifteen metres.\n";
    extracts(sample("utf16le-bom.txt"), "", "a.txt", "text/plain", german);
    extracts(sample("windows1252.txt"), "", "a.txt", "text/plain", german);
    extracts(sample("utf16be.txt"), "", "a.txt", "text/plain", english);
    extracts(sample("utf32le.txt"), "", "a.txt", "text/plain", english);
    extracts(sample("koi8.html"), "", "a.html", "text/html", "p Глубина пятнадцать метров.\n");
    extracts(sample("shiftjis.html"), "", "a.html", "text/html", "p 東京港の水深\n");
    extracts(STR("\xc7\xcc"), "text/plain; charset=\"koi8-r\"", "", "text/plain", "p гл\n");
    extracts(STR("\xef\xbb\xbfmark"), "", "", "text/plain", "p mark\n");
    extracts(sample("japanese.txt"), "", "", "text/plain",
             "p 港の記録\np 東京港の水深は十五メートルである。潮の流れは速い。船は夜明けに入港する。\n");
    extracts(STR("\xe9t\xe9"), "text/plain; charset=no-such-charset", "", "text/plain", "p été\n");
    refuses(STR("\xff\xff\xff\xff"), "text/plain; charset=utf-7", "", "encoding", "utf-7");
}

/* Of seven bits: they are valid UTF-8, too. */
static void test_charsets_that_shift(void **state)
{
    static const struct {
        const char *label, *bytes, *outline;
    } of[] = {
        {"iso-2022-jp", "a\033$B9A\033(B b", "p a港 b\n"},
        {"ISO-2022-JP", "\033$B9A-!\033(I1\033(J.\n\033$B9A\n\nb", "p 港①ｱ./港\np b\n"},
        {"iso-2022-jp", "\033$B9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A9A\"/9A\033(B",
         "p 港港港港港港港港港港港港港港港港港港港港港港港港港\xef\xbf\xbd港\n"},
        {"us-ascii", "\033$B9A\033(B", "p 港\n"}, /* told by its marks */
        {"iso-2022-kr", "\033$)CA \016GW18\017 b", "p A 항구 b\n"},
        {"iso-2022-kr", "\016GW18\017 b", "p 항구 b\n"},
        {"hz-gb-2312", "a ~{8[~} ~~ b", "p a 港 ~ b\n"},
        {"utf-7", "Gr+APwA3w-e +- a", "p Grüße + a\n"},
        {"iso-2022-jp", "plain", "p plain\n"},
        {"windows-1258", "Vi\xea\xf2t Nam Vi\xea\xf2", "p Việt Nam Việ\n"},
        {"windows-1258", "Nga\xe0", "p Ngaà\n"},
    };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        char mime[80];
        snprintf(mime, sizeof mime, "text/plain; charset=%s", of[i].label);
        extracts(str_of(of[i].bytes), mime, "", "text/plain", of[i].outline);
    }
    extracts(STR("<html><meta charset=iso-2022-jp><p>\033$B9A\033(B</html>"), "", "", "text/html", "p 港\n");
    (void)state;
}

static void test_refusals(void **state)
{
    (void)state;
    refuses(STR("%PDF-1.7\n1 0 obj"), "text/markdown", "a.md", "unsupported_file", "PDF");
    refuses(STR("PK\3\4rest of it"), "", "a.docx", "invalid_file", "ZIP");
    refuses(STR("\x7f"
                "ELF\2\1\1"),
            "text/plain", "a.txt", "unsupported_file", "ELF");
    refuses(STR("\x89PNG\r\n\x1a\n...."), "text/html", "a.html", "unsupported_file", "PNG");
    refuses(STR("\x1f\x8b\x08\0\0\0"), "", "changelog.gz", "unsupported_file", "gzip");
    refuses(STR("GIF89a\1\0\1\0\0"), "", "a", "unsupported_file", "GIF");
    refuses(STR("\1\2\3\4 what is this"), "", "a", "unsupported_file", "binary data");
    refuses(STR("plain words"), "application/pdf", "a.pdf", "invalid_file", "application/pdf");
    refuses(STR("plain words"), "", "a.docx", "invalid_file", "wordprocessingml");
    refuses(STR("plain words"), "image/x-unknown", "", "invalid_file", "image");
    refuses(STR(""), "text/plain", "a.txt", "empty_file", "no text");
    refuses(STR(" \n\t\n"), "text/plain", "a.txt", "empty_file", "no text");
    refuses(STR("<html><script>x()</script></html>"), "", "", "empty_file", "no text");
    refuses(STR("<!-- nothing -->"), "", "a.md", "empty_file", "no text");
}

/* Larger than what is parsed at once; the seams must not show. */
static void test_large_markdown(void **state)
{
    (void)state;
    struct buf md = {0}, expected = {0};
    for (int i = 0; i < 30000; i++) {
        buf_printf(&md,
                   "## Part %d\n\nWords of *part* %d go on and on.\n\n```\n# no heading %d\n\nplain\n```\n\n- item\n\n",
                   i, i, i);
        buf_printf(&expected, "h2 Part %d\np Words of part %d go on and on.\ncode # no heading %d//plain\nli item\n", i,
                   i, i);
    }
    assert_true(md.n > 2 << 20);
    buf_ch(&expected, 0);
    extracts(buf_view(&md), "", "a.md", "text/markdown", expected.p);
    buf_fini(&md);
    buf_fini(&expected);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(extract_mime_of_name(STR("a.md")), "text/markdown");
    assert_string_equal(extract_mime_of_name(STR("dir.d/A.HTML")), "text/html");
    assert_null(extract_mime_of_name(STR("dir.md/README")));
    assert_null(extract_mime_of_name(STR("README.")));
    assert_null(extract_mime_of_name(STR("")));
}

static void test_hostile(void **state)
{
    (void)state;
    survives(repeated("<html>", "<div>", 20000, "deep"), "a.html");
    survives(repeated("<html><table>", "<tr><td><table>", 3000, "deep"), "a.html");
    survives(repeated("<html>", "<b class=x>", 2000, repeated("", "<p>x", 300, "").p), "a.html");
    survives(repeated("<html><a ", "b=c d ", 2000, ">x</a>"), "a.html");
    survives(repeated("", "> ", 5000, "deep"), "a.md");
    survives(repeated("", "- ", 2000, "deep"), "a.md");
    survives(repeated("", "[", 50000, "x"), "a.md");
    survives(repeated("", "*a **b ", 20000, "x"), "a.md");
    survives(repeated("", "![[]()", 5000, "x"), "a.md");
    /* gumbo frees the body by recursion when a frameset takes its place */
    refuses(repeated("<html>", "<div>", 20000, "<frameset>"), "", "a.html", "invalid_file", "nested too deeply");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_markdown, begin, end),
        cmocka_unit_test_setup_teardown(test_html, begin, end),
        cmocka_unit_test_setup_teardown(test_plain, begin, end),
        cmocka_unit_test_setup_teardown(test_charsets, begin, end),
        cmocka_unit_test_setup_teardown(test_names_of_charsets, begin, end),
        cmocka_unit_test_setup_teardown(test_charsets_that_shift, begin, end),
        cmocka_unit_test_setup_teardown(test_refusals, begin, end),
        cmocka_unit_test_setup_teardown(test_large_markdown, begin, end),
        cmocka_unit_test_setup_teardown(test_names, begin, end),
        cmocka_unit_test_setup_teardown(test_hostile, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
