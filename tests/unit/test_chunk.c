#include "worker/core/chunk.h"
#include "worker/core/given.h"
#include "worker/fiber/loop.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct arena arena;
static struct analyzer *english;

static int begin(void **state)
{
    (void)state;
    arena_init(&arena);
    english = analyzer_new(STR("english"), NULL);
    return english ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    analyzer_free(english);
    arena_fini(&arena);
    return 0;
}

static size_t chars(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static bool count(void *arg, const struct term *t)
{
    (void)t;
    ++*(int *)arg;
    return true;
}

struct cut {
    struct extracted x;
    struct store_chunk_new *chunk;
    size_t n;
};

static int page_at(const struct extracted *x, size_t byte)
{
    size_t i = 0;
    while (x->block[i].to <= byte)
        i++;
    return x->block[i].page;
}

/* Chunks a document, and checks what holds for every chunking. */
static struct cut cut_blocks(struct extracted x, struct chunking how)
{
    struct cut c = {.x = x};
    struct err e = {0};
    assert_int_equal(chunk_document(&arena, english, &c.x, &how, 100000, &c.chunk, &c.n, &e), 0);
    struct str all = c.x.text;
    size_t covered = 0, last_from = 0, before = 0; /* characters before last_from */
    int64_t last_end = 0;
    assert_true(c.n > 0);
    for (size_t i = 0; i < c.n; i++) {
        const struct store_chunk_new *k = &c.chunk[i];
        size_t from = (size_t)k->byte_start, to = (size_t)k->byte_end;
        assert_true(from < to && to <= all.n);
        assert_true(str_eq(k->text, (struct str){all.p + from, to - from}));
        assert_true(str_is_utf8(k->text));
        before = from < last_from ? chars((struct str){all.p, from})
                                  : before + chars((struct str){all.p + last_from, from - last_from});
        last_from = from;
        assert_int_equal(k->char_start, before);
        assert_int_equal(k->char_end, before + chars(k->text));
        assert_true(k->byte_end > last_end); /* progress */
        last_end = k->byte_end;
        int words = 0; /* what a chunk is measured by; the index has more of scripts without spaces */
        analyze(english, k->text, count, &words);
        if (words > how.max_tokens)
            fail_msg("%d tokens: %.40s", words, k->text.p);
        for (; covered < from; covered++) /* nothing but white space is left out */
            assert_non_null(memchr(" \n\t", all.p[covered], 3));
        covered = to > covered ? to : covered;
        struct buf terms = {0};
        assert_int_equal(analyze_terms(english, k->text, &terms), k->tokens);
        assert_true(str_eq(buf_view(&terms), k->terms));
        buf_fini(&terms);
        struct sha256 hash;
        sha256_of(k->text.p, k->text.n, &hash);
        assert_memory_equal(&hash, &k->sha256, sizeof hash);
        assert_int_equal(k->page, page_at(&c.x, from));
        assert_int_equal(k->page, page_at(&c.x, to - 1));
    }
    assert_int_equal(covered, all.n);
    return c;
}

static struct extracted read_text(struct str text, const char *name)
{
    struct extracted x;
    const char *code;
    struct err e = {0};
    assert_int_equal(extract(&arena, text, STR(""), str_of(name), &x, &code, &e), 0);
    return x;
}

static struct cut cut_text(struct str text, const char *name, struct chunking how)
{
    return cut_blocks(read_text(text, name), how);
}

static void test_small_document_is_one_chunk(void **state)
{
    (void)state;
    struct cut c =
        cut_text(STR("# Title\n\nOne sentence. Another one.\n"), "a.md", (struct chunking){CHUNK_AUTO, 320, 48, 0});
    assert_int_equal(c.n, 1);
    assert_true(str_eqz(c.chunk[0].headings, "[\"Title\"]"));
    assert_true(str_eqz(c.chunk[0].text, "Title\n\nOne sentence. Another one."));
}

static struct str sentences(int n, int words)
{
    struct buf b = {0};
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < words; w++)
            buf_printf(&b, "%s%d", w ? " word" : "Word", i * words + w);
        buf_lit(&b, ". ");
    }
    struct str s = buf_view(&b);
    arena_own(&arena, b.p, free);
    return s;
}

static void test_sentences_stay_whole_and_overlap(void **state)
{
    (void)state;
    struct cut c = cut_text(sentences(40, 10), "a.txt", (struct chunking){CHUNK_AUTO, 64, 20, 0});
    assert_true(c.n > 6);
    for (size_t i = 0; i < c.n; i++) {
        struct str t = c.chunk[i].text;
        assert_int_equal(t.p[t.n - 1], '.');
        assert_memory_equal(t.p, "Word", 4);
        assert_int_equal(c.chunk[i].tokens % 10, 0);
        if (i) /* two sentences are repeated */
            assert_true(c.chunk[i].byte_start < c.chunk[i - 1].byte_end);
    }
    struct cut none = cut_text(sentences(40, 10), "a.txt", (struct chunking){CHUNK_AUTO, 64, 0, 0});
    for (size_t i = 1; i < none.n; i++)
        assert_true(none.chunk[i].byte_start > none.chunk[i - 1].byte_end - 1);
}

static void test_static_windows(void **state)
{
    (void)state;
    struct cut c = cut_text(sentences(40, 10), "a.txt", (struct chunking){CHUNK_STATIC, 64, 16, 0});
    for (size_t i = 0; i + 1 < c.n; i++)
        assert_int_equal(c.chunk[i].tokens, 64);
    assert_int_equal(c.n, 8); /* 64 + 7 × 48 = 400 */
    assert_int_equal(c.chunk[7].tokens, 64);
    assert_true(str_starts(c.chunk[1].text, STR("word48 ")));
}

static void test_sections(void **state)
{
    (void)state;
    struct str md =
        STR("# A\n\nIntro text here.\n\n## B\n\nSecond part.\n\n### C\n\n#### D\n\nDeep part.\n\n## E\n\nLast.\n");
    struct cut c = cut_text(md, "a.md", (struct chunking){CHUNK_STRUCTURE, 320, 48, 0});
    assert_int_equal(c.n, 4);
    assert_true(str_eqz(c.chunk[0].text, "A\n\nIntro text here."));
    assert_true(str_eqz(c.chunk[0].headings, "[\"A\"]"));
    assert_true(str_eqz(c.chunk[1].headings, "[\"A\",\"B\"]"));
    assert_true(str_eqz(c.chunk[2].text, "C\n\nD\n\nDeep part."));
    assert_true(str_eqz(c.chunk[2].headings, "[\"A\",\"B\",\"C\",\"D\"]"));
    assert_true(str_eqz(c.chunk[3].headings, "[\"A\",\"E\"]"));
    struct cut packed = cut_text(md, "a.md", (struct chunking){CHUNK_AUTO, 320, 48, 0});
    assert_int_equal(packed.n, 1);
    assert_true(str_eqz(packed.chunk[0].headings, "[\"A\"]"));
}

/* A chunk names no section that some of its text is not in. */
static void test_headings_are_those_of_all_the_text(void **state)
{
    (void)state;
    static const struct {
        const char *md, *headings[4];
    } cases[] = {
        {"# Kettles\n\nBoil.\n\n# Fridges\n\nCool.\n", {"[\"Kettles\"]", "[\"Fridges\"]"}},
        {"Before.\n\n# A\n\nAfter.\n", {"[]", "[\"A\"]"}},
        {"## B\n\nOne.\n\n# A\n\nTwo.\n", {"[\"B\"]", "[\"A\"]"}},
        {"# A\n\n## B\n\nOne.\n\n## C\n\nTwo.\n\n# D\n", {"[\"A\"]", "[\"D\"]"}},
        {"# Cover\n\n# A\n\n## B\n\nOne.\n", {"[\"A\",\"B\"]"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cut c = cut_text(str_of(cases[i].md), "a.md", (struct chunking){CHUNK_AUTO, 320, 48, 0});
        for (size_t k = 0; k < c.n; k++)
            assert_string_equal(arena_dup(&arena, c.chunk[k].headings).p, cases[i].headings[k]);
        assert_null(cases[i].headings[c.n]);
    }
    struct cut windows = cut_text(str_of(cases[0].md), "a.md", (struct chunking){CHUNK_STATIC, 320, 48, 0});
    assert_int_equal(windows.n, 1);
    assert_true(str_eqz(windows.chunk[0].headings, "[]"));
}

static void test_heading_stays_with_its_text(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 30; i++) {
        buf_printf(&b, "## Part %d \"x\"\n\n", i);
        buf_str(&b, sentences(3, 8));
        buf_lit(&b, "\n\n");
    }
    arena_own(&arena, b.p, free);
    struct cut c = cut_text(buf_view(&b), "a.md", (struct chunking){CHUNK_AUTO, 40, 8, 0});
    for (size_t i = 0; i < c.n; i++)
        assert_int_equal(c.chunk[i].text.p[c.chunk[i].text.n - 1], '.');
    assert_true(str_eqz(c.chunk[0].headings, "[\"Part 0 \\\"x\\\"\"]"));
}

/* Paragraphs of a long section, `changed` of them put differently. */
static struct str paragraphs(int n, int changed)
{
    struct buf b = {0};
    unsigned random = 42;
    for (int i = 0; i < n; i++) {
        if (i == changed)
            buf_lit(&b, "This paragraph was not there before. It has two sentences.\n\n");
        for (int s = 0; s < 3; s++) {
            for (int w = 0; w < 6 + (int)(random % 7); w++)
                buf_printf(&b, "%s%u", w ? " word" : "Word", (random = random * 1103515245 + 12345) >> 16);
            buf_lit(&b, ". ");
        }
        buf_lit(&b, "\n\n");
    }
    struct str s = buf_view(&b);
    arena_own(&arena, b.p, free);
    return s;
}

static size_t common(const struct cut *a, const struct cut *b)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++)
        for (size_t k = 0; k < b->n; k++)
            if (memcmp(&a->chunk[i].sha256, &b->chunk[k].sha256, sizeof a->chunk[i].sha256) == 0) {
                n++;
                break;
            }
    return n;
}

static void test_an_edit_leaves_later_chunks_alone(void **state)
{
    (void)state;
    struct chunking hows[] = {
        {CHUNK_AUTO, 320, 48, 0}, {CHUNK_STRUCTURE, 128, 16, 0}, {CHUNK_PARENT_CHILD, 64, 0, 256}};
    for (size_t i = 0; i < sizeof hows / sizeof *hows; i++) {
        struct cut before = cut_text(paragraphs(400, -1), "a.txt", hows[i]);
        struct cut after = cut_text(paragraphs(400, 100), "a.txt", hows[i]);
        size_t same = common(&after, &before), fresh = after.n - same;
        if (fresh * 10 > after.n)
            fail_msg("%zu of %zu chunks are new", fresh, after.n);
    }
}

static void test_parents(void **state)
{
    (void)state;
    struct cut c = cut_text(paragraphs(30, -1), "a.txt", (struct chunking){CHUNK_PARENT_CHILD, 64, 0, 256});
    int parents = 0;
    for (size_t i = 0; i < c.n; i++) {
        const struct store_chunk_new *k = &c.chunk[i];
        assert_true(k->parent.byte_start <= k->byte_start && k->byte_end <= k->parent.byte_end);
        struct str text = str_sub(c.x.text, 0, (size_t)k->parent.byte_start);
        assert_int_equal(k->parent.char_start, chars(text));
        parents += i == 0 || k->parent.byte_start != c.chunk[i - 1].parent.byte_start;
    }
    assert_true(parents > 2 && (size_t)parents * 2 < c.n);
    c = cut_text(STR("One short sentence."), "a.txt", (struct chunking){CHUNK_PARENT_CHILD, 64, 0, 256});
    assert_int_equal(c.n, 1);
    assert_int_equal(c.chunk[0].parent.byte_end, 0); /* nothing around it */
}

/* Whatever is on the pages: cut_blocks() checks that no chunk is on two. */
static void test_pages(void **state)
{
    (void)state;
    for (int type = CHUNK_AUTO; type <= CHUNK_PARENT_CHILD; type++) {
        struct extracted x = read_text(STR("One.\n\nTwo.\n\nThree.\n\nFour.\n"), "a.txt");
        for (size_t i = 0; i < x.n; i++)
            x.block[i].page = (int)i + 1;
        struct cut c = cut_blocks(x, (struct chunking){(unsigned)type, 64, 16, 256});
        assert_int_equal(c.n, 4);
        assert_true(str_eqz(c.chunk[2].text, "Three."));
        for (size_t i = 0; i < c.n && type == CHUNK_PARENT_CHILD; i++)
            assert_int_equal(c.chunk[i].parent.byte_end, x.text.n);
        for (int pages = 1; pages < 40; pages += 7) {
            x = read_text(paragraphs(80, -1), "a.txt");
            for (size_t i = 0; i < x.n; i++)
                x.block[i].page = (int)i / pages + 1;
            cut_blocks(x, (struct chunking){(unsigned)type, 64, 16, 256});
        }
        x = read_text(STR("# A\n\n# B\n\nOne.\n\n# C\n\nTwo.\n\n## D\n"), "a.md");
        for (size_t i = 0; i < x.n; i++)
            x.block[i].page = (int)i + 1;
        assert_int_equal(cut_blocks(x, (struct chunking){(unsigned)type, 64, 16, 256}).n, x.n);
    }
}

static struct str repeated(const char *unit, size_t n)
{
    struct buf b = {0};
    for (size_t i = 0; i < n; i++)
        buf_str(&b, str_of(unit));
    arena_own(&arena, b.p, free);
    return buf_view(&b);
}

static void test_any_text(void **state)
{
    (void)state;
    static const char *const units[] = {"a",      "é",    "東京",  "。",   "..........", "! ",       "x. ", "-",
                                        "word ",  "½",    "I.",    "ab\n", "A B. ",      "\xcc\x81", "่ก",   "\" ",
                                        "z\n\nz", "1.5 ", "# a\n", "|",    "ﷺ ",         "ａ",       "'",   "x!x"};
    for (size_t u = 0; u < sizeof units / sizeof *units; u++)
        for (int type = CHUNK_AUTO; type <= CHUNK_PARENT_CHILD; type++)
            for (int tokens = 16; tokens <= 160; tokens += 144) {
                struct str text = repeated(units[u], 1201);
                cut_text(text, "a.txt", (struct chunking){(unsigned)type, tokens, tokens / 2, 3 * tokens});
                cut_text(text, "a.c", (struct chunking){(unsigned)type, tokens, 3, 2 * tokens});
            }
}

static void test_mixtures(void **state)
{
    (void)state;
    static const char *const parts[] = {"word ",      "Sentence end. ",
                                        "\n\n",       "\n",
                                        "# H\n\n",    "東京都。",
                                        "é",          "- item\n",
                                        "    code\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                        "ﾞ",          "1.",
                                        "?! ",        "| a | b |\n"};
    unsigned random = 7;
    for (int round = 0; round < 300; round++) {
        struct buf b = {0};
        for (int i = 0; i < 200; i++) {
            random = random * 1103515245 + 12345;
            buf_str(&b, str_of(parts[(random >> 16) % (sizeof parts / sizeof *parts)]));
        }
        arena_own(&arena, b.p, free);
        cut_text(buf_view(&b), round % 2 ? "a.md" : "a.txt",
                 (struct chunking){(unsigned)round % 4, 16 + round % 40, round % 9, 2 * (16 + round % 40)});
    }
}

static void test_too_many(void **state)
{
    (void)state;
    struct extracted x;
    const char *code;
    struct err e = {0};
    struct store_chunk_new *chunk;
    size_t n;
    struct chunking how = {CHUNK_AUTO, 16, 0, 0};
    assert_int_equal(extract(&arena, sentences(100, 10), STR(""), STR("a.txt"), &x, &code, &e), 0);
    assert_int_equal(chunk_document(&arena, english, &x, &how, 99, &chunk, &n, &e), -1);
    assert_int_equal(e.code, ERR_VALIDATION);
    assert_int_equal(chunk_document(&arena, english, &x, &how, 100, &chunk, &n, &e), 0);
    assert_int_equal(n, 100);
}

static void test_options(void **state)
{
    (void)state;
    struct config cfg = {.ingest_chunk_tokens = 320, .ingest_chunk_overlap = 48};
    struct chunking c;
    struct err e = {0};
    assert_int_equal(chunking_parse(&arena, STR("{}"), &cfg, &c, &e), 0);
    assert_int_equal(c.type, CHUNK_AUTO);
    assert_int_equal(c.max_tokens, 320);
    assert_int_equal(c.overlap, 48);
    assert_int_equal(chunking_parse(&arena, STR("{\"type\":\"static\",\"max_tokens\":64}"), &cfg, &c, &e), 0);
    assert_int_equal(c.type, CHUNK_STATIC);
    assert_int_equal(c.max_tokens, 64);
    assert_int_equal(c.overlap, 32);
    assert_int_equal(chunking_parse(&arena, STR("{\"type\":\"parent_child\",\"max_tokens\":64}"), &cfg, &c, &e), 0);
    assert_int_equal(c.parent_tokens, 256);
    assert_int_equal(c.overlap, 0);
    static const struct {
        const char *json, *pointer;
    } bad[] = {
        {"{\"type\":\"parent\"}", "/chunking/type"},
        {"{\"type\":\"static\",\"max_tokens\":5}", "/chunking/max_tokens"},
        {"{\"type\":\"static\",\"max_tokens\":64,\"overlap\":33}", "/chunking/overlap"},
        {"{\"max_tokens\":64}", "/chunking/max_tokens"},
        {"{\"typ\":\"auto\"}", "/chunking/typ"},
        {"{\"type\":\"static\",\"parent_tokens\":640}", "/chunking/parent_tokens"},
        {"{\"type\":\"parent_child\",\"overlap\":4}", "/chunking/overlap"},
        {"{\"type\":\"parent_child\",\"max_tokens\":64,\"parent_tokens\":100}", "/chunking/parent_tokens"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(chunking_parse(&arena, str_of(bad[i].json), &cfg, &c, &e), -1);
        assert_int_equal(e.code, ERR_VALIDATION);
        assert_string_equal(e.pointer, bad[i].pointer);
    }
}

/* A large document is worked on in pieces: the loop turns meanwhile. */
static struct {
    size_t bytes;
    int turns;
    bool done;
} big;

static void count_turn(void *arg)
{
    (void)arg;
    if (!big.done)
        big.turns++;
}

static void chunk_big(void *arg)
{
    (void)arg;
    struct str text = sentences(60000, 8);
    big.bytes = text.n;
    cut_text(text, "a.txt", (struct chunking){CHUNK_AUTO, 320, 48, 0});
    big.done = true;
    loop_stop();
}

/* So are chunks that came ready-made. */
static void take_big(void *arg)
{
    enum { CHUNKS = 60, LENGTH = 60000 };
    (void)arg;
    struct str text = str_sub(sentences(2000, 8), 0, LENGTH);
    struct extracted x = {0};
    struct store_chunk_new *k;
    struct buf json = {0};
    struct err e;
    size_t n;
    assert_int_equal(text.n, LENGTH);
    for (int i = 0; i < CHUNKS; i++)
        buf_printf(&json, "%s{\"text\":\"" STR_FMT "\"}", i ? "," : "[", STR_ARG(text));
    buf_ch(&json, ']');
    big.bytes = (size_t)CHUNKS * LENGTH;
    assert_int_equal(given_chunks(&arena, english, buf_view(&json), 100, &x, &k, &n, &e), 0);
    assert_int_equal(n, CHUNKS);
    assert_int_equal(x.text.n, big.bytes + 2 * (CHUNKS - 1));
    buf_fini(&json);
    big.done = true;
    loop_stop();
}

static void turns_while(void (*fn)(void *))
{
    struct err e = {0};
    static struct loop_hook hook = {.fn = count_turn};
    memset(&big, 0, sizeof big);
    assert_int_equal(loop_init(&e), 0);
    loop_hook_add(&hook, LOOP_FLUSH_LOGS);
    assert_non_null(fiber_spawn("chunk", fn, NULL));
    loop_run();
    assert_true(big.done);
    assert_true(big.turns >= (int)(big.bytes >> 16));
    loop_hook_del(&hook);
    fiber_fini();
    loop_fini();
}

static void test_large_documents_yield(void **state)
{
    (void)state;
    turns_while(chunk_big);
    turns_while(take_big);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, begin, end)
    const struct CMUnitTest tests[] = {
        T(test_small_document_is_one_chunk),
        T(test_sentences_stay_whole_and_overlap),
        T(test_static_windows),
        T(test_sections),
        T(test_headings_are_those_of_all_the_text),
        T(test_heading_stays_with_its_text),
        T(test_an_edit_leaves_later_chunks_alone),
        T(test_parents),
        T(test_pages),
        T(test_any_text),
        T(test_mixtures),
        T(test_too_many),
        T(test_options),
        T(test_large_documents_yield),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
