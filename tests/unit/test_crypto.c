#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "worker/io/crypto.h"

static void assert_digest(const struct sha256 *s, const char *hex)
{
    char text[SHA256_TEXT_LEN];
    sha256_text(s, text);
    assert_memory_equal(text, hex, sizeof text);
}

/* FIPS 180-2, appendix B, and the empty message. */
static void known_answers(void **state)
{
    struct sha256 s;
    (void)state;
    sha256_of("", 0, &s);
    assert_digest(&s, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_of("abc", 3, &s);
    assert_digest(&s, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const char *two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    sha256_of(two, 56, &s);
    assert_digest(&s, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void pieces_make_the_whole(void **state)
{
    char block[1000];
    struct sha256 s;
    (void)state;
    memset(block, 'a', sizeof block);
    struct sha256_ctx *c = sha256_new();
    for (int i = 0; i < 1000; i++)
        sha256_add(c, block, sizeof block);
    sha256_end(c, &s);
    sha256_free(c);
    assert_digest(&s, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    sha256_free(NULL);
}

static void text_reads_back(void **state)
{
    struct sha256 s, back;
    char text[SHA256_TEXT_LEN];
    (void)state;
    sha256_of("ragd", 4, &s);
    sha256_text(&s, text);
    assert_true(sha256_parse((struct str){text, sizeof text}, &back));
    assert_memory_equal(&s, &back, sizeof s);
    text[0] = 'A';
    assert_true(sha256_parse((struct str){text, sizeof text}, &back));
    assert_int_equal(back.b[0] >> 4, 10);
}

static void bad_text_is_refused(void **state)
{
    struct sha256 s = {{7}};
    (void)state;
    const char *good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    char bad[SHA256_TEXT_LEN + 1];
    assert_false(sha256_parse((struct str){good, 63}, &s));
    assert_false(sha256_parse((struct str){NULL, 0}, &s));
    for (const char *c = "g/:@`G \n"; *c; c++) {
        memcpy(bad, good, sizeof bad);
        bad[63] = *c;
        assert_false(sha256_parse((struct str){bad, 64}, &s));
    }
    assert_int_equal(s.b[0], 7);
}

/* RFC 4231, cases 1 and 6: a short key, and one longer than a block. */
static void codes_of_messages(void **state)
{
    char key[131];
    struct sha256 s;
    (void)state;
    memset(key, 0x0b, 20);
    hmac_sha256((struct str){key, 20}, STR("Hi There"), &s);
    assert_digest(&s, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    memset(key, 0xaa, sizeof key);
    hmac_sha256((struct str){key, sizeof key}, STR("Test Using Larger Than Block-Size Key - Hash Key First"), &s);
    assert_digest(&s, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void random_bytes_differ(void **state)
{
    uint8_t a[256] = {0}, b[256] = {0};
    (void)state;
    random_bytes(a, sizeof a);
    random_bytes(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a, a + 128, 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),     cmocka_unit_test(pieces_make_the_whole),
        cmocka_unit_test(text_reads_back),   cmocka_unit_test(bad_text_is_refused),
        cmocka_unit_test(codes_of_messages), cmocka_unit_test(random_bytes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
