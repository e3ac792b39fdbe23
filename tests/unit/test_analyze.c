#include "worker/core/analyze.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static bool join(void *arg, const struct term *t)
{
    struct buf *out = arg;
    if (out->n)
        buf_ch(out, ' ');
    buf_str(out, t->text);
    return true;
}

/* Of a query. */
static void expect_query(const char *language, const char *text, const char *terms)
{
    struct err e = {0};
    struct analyzer *a = analyzer_new(str_of(language), &e);
    struct buf out = {0};
    assert_non_null(a);
    analyze(a, str_of(text), join, &out);
    buf_ch(&out, 0);
    assert_string_equal(out.p, terms);
    buf_fini(&out);
    analyzer_free(a);
}

/* In the index. */
static void expect(const char *language, const char *text, const char *terms)
{
    struct err e = {0};
    struct analyzer *a = analyzer_new(str_of(language), &e);
    assert_non_null(a);
    struct buf out = {0};
    int n = analyze_terms(a, str_of(text), &out);
    buf_ch(&out, 0);
    assert_string_equal(out.p, terms);
    int expected = terms[0] != 0;
    for (const char *p = terms; *p; p++)
        expected += *p == ' ';
    assert_int_equal(n, expected);
    buf_fini(&out);
    analyzer_free(a);
}

static void test_ascii_words(void **state)
{
    (void)state;
    expect("none", "Hello, World! x_y 3.14 v2", "hello world x y 3 14 v2");
    expect("none", "", "");
    expect("none", "  ... --- !!! ", "");
    expect("none", "well-known e-mail", "well known e mail");
}

static void test_english_stems(void **state)
{
    (void)state;
    expect("english", "Running runners run", "run runner run");
    expect("en", "databases connected", "databas connect");
    expect("english", "don't O'Brien's 'quoted' dogs'", "dont obrien quot dog");
    expect("english", "don\xe2\x80\x99t", "dont");
    expect("english", "mp3s 80s", "mp3s 80s");
}

static void test_folding(void **state)
{
    (void)state;
    expect("none", "ÄÖÜ Straße ÉCOLE", "aou strasse ecole");
    expect("none", "Łódź Ærø Þór", "lodz aero thor");
    expect("none", "e\xcc\x81t\xc3\xa9 \xef\xac\x81nd ｆｕｌｌ", "ete find full");
    expect("none", "co\xc2\xadoperate", "cooperate"); /* soft hyphen */
    expect("none", "½½ ①", "1 2 1 2 1");
    expect("none", "İstanbul", "istanbul");
    expect("none", "МОСКВА Ёлка", "москва ёлка"); /* marks of other scripts stay */
    expect("none", "l'été", "l ete");
}

static void test_languages(void **state)
{
    (void)state;
    expect("german", "Häuser Hauses", "haus haus");
    expect("fr", "continuellement", "continuel");
    expect("russian", "книги книга", "книг книг");
    assert_true(analyzer_language_valid(STR("none")));
    assert_true(analyzer_language_valid(STR("spanish")));
    assert_false(analyzer_language_valid(STR("klingon")));
    assert_false(analyzer_language_valid(STR("")));
    struct err e = {0};
    assert_null(analyzer_new(STR("klingon"), &e));
    assert_int_equal(e.code, ERR_VALIDATION);
    assert_non_null(strstr(e.msg, "german"));
}

static void test_bigrams(void **state)
{
    (void)state;
    expect_query("english", "東京都", "東京 京都");
    expect_query("english", "水", "水");
    expect_query("english", "ﾃﾞｰﾀ", "デー ータ"); /* half-width, voiced */
    expect_query("english", "ragd は速い。安全", "ragd は速 速い 安全");
    expect_query("english", "검색 엔진", "검색 엔진");
    expect_query("english", "กำลัง", "กํา ําลั ลัง");
    expect_query("english", "PDFファイル", "pdf ファ ァイ イル");
}

/* What a query of one character finds. */
static void test_units_of_runs(void **state)
{
    (void)state;
    expect("english", "東京都", "東 東京 京 京都 都");
    expect("english", "水", "水");
    expect("english", "ﾃﾞｰﾀ", "デ デー ー ータ タ");
    expect("english", "ragd は速い。houses", "ragd は は速 速 速い い hous");
    expect("english", "กำลัง", "ก กํา ํา ําลั ลั ลัง ง");
}

static void test_hostile(void **state)
{
    (void)state;
    expect("none",
           "a\xff\xfe"
           "b \xc3",
           "a b");
    expect("none", "\xed\xa0\x80x", "x"); /* a surrogate is no character */
    char word[300];
    memset(word, 'a', sizeof word);
    word[299] = 0;
    char cut[ANALYZE_TERM_MAX + 1];
    memset(cut, 'a', ANALYZE_TERM_MAX);
    cut[ANALYZE_TERM_MAX] = 0;
    expect("none", word, cut);
    struct buf marks = {0}, wide = {0}, terms = {0};
    struct err e;
    struct analyzer *a = analyzer_new(STR("english"), &e);
    buf_ch(&marks, 'z');
    for (int i = 0; i < 100000; i++)
        buf_lit(&marks, "\xcc\x81");
    assert_int_equal(analyze_terms(a, buf_view(&marks), &terms), 1);
    assert_true(str_eqz(buf_view(&terms), "z"));
    for (int i = 0; i < 1000; i++)
        buf_lit(&wide, "д");
    terms.n = 0;
    assert_int_equal(analyze_terms(a, buf_view(&wide), &terms), 1);
    assert_int_equal(terms.n, ANALYZE_TERM_MAX);
    assert_true(str_is_utf8(buf_view(&terms)));
    buf_fini(&marks);
    buf_fini(&wide);
    buf_fini(&terms);
    analyzer_free(a);
}

/* Whatever the bytes: no empty term, no space or control in one, valid UTF-8, within bounds, offsets in order. */
struct checked {
    struct str text;
    size_t last_from;
    int n;
};

static bool check_term(void *arg, const struct term *t)
{
    struct checked *c = arg;
    assert_true(t->text.n > 0 && t->text.n <= ANALYZE_TERM_MAX);
    assert_true(str_is_utf8(t->text));
    for (size_t i = 0; i < t->text.n; i++)
        assert_true((unsigned char)t->text.p[i] > ' ' && t->text.p[i] != '\'');
    assert_true(t->from < t->to && t->to <= c->text.n && t->from >= c->last_from);
    c->last_from = t->from;
    c->n++;
    return true;
}

static void test_any_bytes(void **state)
{
    (void)state;
    static const char *const seeds[] = {
        "a",    "B", "'", "é",        "e\xcc\x81", "京",           "ｶ", "ﾞ", "ก", "ั",  "½",
        "\xff", " ", ".", "\xc2\xad", "한",        "\xe1\x84\x80", "ﷺ", "’", "٣", "ß", "\xf0\xa0\x80\x80",
        "\n",   "-"};
    unsigned random = 1;
    static const char *const languages[] = {"english", "none", "german", "turkish"};
    for (int l = 0; l < 4; l++) {
        struct err e;
        struct analyzer *a = analyzer_new(str_of(languages[l]), &e);
        for (int round = 0; round < 2000; round++) {
            struct buf text = {0};
            for (int i = 0; i < 40; i++) {
                random = random * 1103515245 + 12345;
                buf_str(&text, str_of(seeds[(random >> 16) % (sizeof seeds / sizeof *seeds)]));
            }
            struct checked c = {buf_view(&text), 0, 0};
            analyze(a, c.text, check_term, &c);
            assert_true(c.n > 0);
            struct checked more = {buf_view(&text), 0, 0};
            analyze_indexed(a, more.text, check_term, &more);
            assert_true(more.n >= c.n);
            buf_fini(&text);
        }
        analyzer_free(a);
    }
}

static bool stop_at_second(void *arg, const struct term *t)
{
    (void)t;
    return ++*(int *)arg < 2;
}

static void test_stops_when_told(void **state)
{
    (void)state;
    struct err e;
    struct analyzer *a = analyzer_new(STR("none"), &e);
    int n = 0;
    analyze(a, STR("one two three 東京都庁"), stop_at_second, &n);
    assert_int_equal(n, 2);
    n = 0;
    analyze(a, STR("東京都庁舎"), stop_at_second, &n);
    assert_int_equal(n, 2);
    n = 0;
    analyze_indexed(a, STR("東京都庁舎"), stop_at_second, &n);
    assert_int_equal(n, 2);
    analyzer_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ascii_words),     cmocka_unit_test(test_english_stems),
        cmocka_unit_test(test_folding),         cmocka_unit_test(test_languages),
        cmocka_unit_test(test_bigrams),         cmocka_unit_test(test_units_of_runs),
        cmocka_unit_test(test_hostile),         cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_stops_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
