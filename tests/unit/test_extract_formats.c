/* Formats that are text themselves: tables, JSON, XML, mail, RTF. */
#include "tests/unit/extracting.h"

static void test_csv(void **state)
{
    (void)state;
    extracts(STR("Name,City\nAda,London\n\"Grace, B.\",\"New\n\"\"York\"\"\"\n"), "", "a.csv", "text/csv",
             "row Name | City\n"
             "row Name: Ada | City: London\n"
             "row Name: Grace, B. | City: New \"York\"\n");
    extracts(STR("Name;Size\r\nHall;12,5\r\n;\r\nYard;\r\n"), "text/csv", "", "text/csv",
             "row Name | Size\nrow Name: Hall | Size: 12,5\nrow Name: Yard\n");
    /* no names of columns in the first row */
    extracts(STR("1\t2\n3\t4\n"), "", "a.tsv", "text/tab-separated-values", "row 1 | 2\nrow 3 | 4\n");
    extracts(STR("a,\"b"), "", "a.csv", "text/csv", "row a | b\n");
    refuses(STR(",,,\n,,\n"), "", "a.csv", "empty_file", "no text");
}

static void test_json(void **state)
{
    (void)state;
    extracts(STR("{\"title\": \"Crane\", \"limits\": {\"load\": 40, \"wind\": 7.2e1}, \"tags\": [\"a\", \"b\"],\n"
                 " \"none\": null, \"ok\": true, \"\\u00e9\\ud83d\\ude00\": \"x\\ny\"}"),
             "", "a.json", "application/json",
             "p title: Crane/limits.load: 40/limits.wind: 7.2e1/tags: a, b/ok: true/é😀: x y\n");
    extracts(STR("[{\"a\": 1}, {\"a\": [{\"b\": 2}, {\"b\": 3}]}, \"x\"]"), "application/json", "", "application/json",
             "p a: 1\np a.b: 2/a.b: 3\np x\n");
    extracts(STR("{\"a\": 1}\n{\"a\": 2}\n"), "", "a.ndjson", "application/x-ndjson", "p a: 1\np a: 2\n");
    /* none at all: as it is */
    extracts(STR("{\"a\": 1\nnot JSON"), "", "a.json", "application/json", "code {\"a\": 1/not JSON\n");
    extracts(STR("{} trailing"), "", "a.json", "application/json", "code {} trailing\n");
    extracts(repeated("", "[", 100000, "1"), "", "a.json", "application/json", repeated("code ", "[", 100000, "1\n").p);
    refuses(STR("{\"a\": null}"), "", "a.json", "empty_file", "no text");
}

static void test_xml(void **state)
{
    (void)state;
    extracts(STR("<?xml version='1.0'?><book><title>Cranes</title><p>Lift <b>with</b> care.</p>"
                 "<list><item>one</item><item>two</item></list>tail</book>"),
             "", "", "application/xml", "h2 Cranes\np Lift with care.\np one\np two\np tail\n");
    extracts(STR("<?xml version='1.0' encoding='iso-8859-1'?><a>\xe9t\xe9</a>"), "", "a.xml", "application/xml",
             "p été\n");
    extracts(STR("<a>un<b>closed"), "", "a.xml", "application/xml", "code <a>un<b>closed\n");
    refuses(STR("<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'bbbbbbbb'><!ENTITY c '&b;&b;'>]><a>&c;</a>"), "",
            "a.xml", "invalid_file", "entities");
    refuses(STR("<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>"), "", "",
            "invalid_file", "entities");
    refuses(repeated("<?xml version='1.0'?>", "<a>", 100000, "x"), "", "a.xml", "invalid_file", "nested too deeply");
}

static void test_mail(void **state)
{
    (void)state;
    extracts(STR("Received: from a by b;\r\n Mon, 1 Jan 2024 00:00:00 +0000\r\n"
                 "From: =?utf-8?Q?J=C3=B6rg_M=2E?= <j@example.org>\r\nTo: crew@example.org\r\n"
                 "Subject: =?iso-8859-1?B?S3Jhbg==?= =?utf-8?q?_wartung?=\r\n"
                 "Content-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n"
                 "\r\nGr=FC=DFe aus dem=\r\n Hafen.\r\n\r\nZweiter Absatz.\r\n"),
             "", "a.eml", "message/rfc822",
             "h1 Kran wartung\n"
             "p From: Jörg M. <j@example.org>/To: crew@example.org\n"
             "p Grüße aus dem Hafen.\n"
             "p Zweiter Absatz.\n");
    extracts(
        STR("From: a@example.org\nMessage-ID: <1@example.org>\nSubject: Parts\n"
            "Content-Type: multipart/mixed; boundary=\"out\"\n\npreamble\n--out\n"
            "Content-Type: multipart/alternative; boundary=in\n\n--in\nContent-Type: text/plain\n\n\n"
            "--in\nContent-Type: text/html\n\n<html><h2>Plan</h2><p>Lift &amp; lower.</p></html>\n--in--\n"
            "--out\nContent-Type: application/pdf; name=\"plan.pdf\"\nContent-Transfer-Encoding: base64\n\nJVBERi0=\n"
            "--out\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\nYmFzZTY0IHRleHQ=\n"
            "--out--\nepilogue\n"),
        "", "", "message/rfc822",
        "h1 Parts\np From: a@example.org\nh2 Plan\np Lift & lower.\nli Attachment: plan.pdf\np base64 text\n");
    extracts(STR("From: a\nReceived: x\nContent-Type: message/rfc822\n\nFrom: b\nSubject: inner\n\nhello"), "", "",
             "message/rfc822", "p From: a\nh1 inner\np From: b\np hello\n");
    /* charsets of seven bits */
    extracts(STR("From: a\nReceived: x\nSubject: =?ISO-2022-JP?B?GyRCOUEbKEI=?= plan\n"
                 "Content-Type: text/plain; charset=ISO-2022-JP\n\n\033$B9A\033(B is deep.\n"),
             "", "", "message/rfc822", "h1 港 plan\np From: a\np 港 is deep.\n");
    extracts(STR("From: a\nReceived: x\n\n\033$B9A\033(B is deep.\n"), "", "", "message/rfc822",
             "p From: a\np 港 is deep.\n");
    /* cut off, without an end */
    extracts(STR("From: a\nReceived: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhello"), "", "",
             "message/rfc822", "p From: a\np hello\n");
    /* it says what it is by its name or type only */
    static const char bare[] = "From: a\nDate: today\nSubject: Plan\nContent-Type: text/html\n"
                               "Content-Transfer-Encoding: quoted-printable\n\n<p>Gr=C3=BC=C3=9Fe</p>";
    extracts(str_of(bare), "", "a.eml", "message/rfc822", "h1 Plan\np From: a/Date: today\np Grüße\n");
    extracts(str_of(bare), "message/rfc822", "", "message/rfc822", "h1 Plan\np From: a/Date: today\np Grüße\n");
    extracts(STR("Notes: none\n\nThat is all."), "", "a.eml", "message/rfc822", "p Notes: none\np That is all.\n");
    /* a text that only looks a little like one */
    extracts(STR("From: the harbour\n\nto the town."), "", "a.txt", "text/plain",
             "p From: the harbour\np to the town.\n");
}

static void test_rtf(void **state)
{
    (void)state;
    extracts(STR("{\\rtf1\\ansi\\ansicpg1252{\\fonttbl{\\f0 Arial;}}{\\info{\\title Manual}{\\author Me}}\n"
                 "\\pard\\outlinelevel0 Crane\\par\\pard Gr\\'fc\\'dfe, \\b bold\\b0  \\u8211? dash.\\line next\\par\n"
                 "{\\*\\generator X;}{\\pict 00ff}\\trowd\\intbl a\\cell b\\cell\\row\\pard after\\par}"),
             "", "a.rtf", "application/rtf", "h1 Crane\np Grüße, bold – dash./next\nrow a | b\np after\n");
    assert_true(str_eqz(title_of(STR("{\\rtf1{\\info{\\title Manual}}text}"), "a"), "Manual"));
    extracts(STR("{\\rtf1\\ansicpg1251 \\'cf\\'f0\\'e8\\par\\u-10179?\\u-8704?}"), "", "", "application/rtf",
             "p При\np 😀\n");
    extracts(STR("{\\rtf1 text\\bin5 {{{{{ more}"), "", "", "application/rtf", "p text more\n");
    extracts(STR("{\\rtf1 a\\\\b \\{c\\}"), "", "", "application/rtf", "p a\\b {c}\n");
    extracts(STR("{\\rtf1 Lift{\\footnote\\pard{\\b Not}\\par at night} slowly.{\\footnote x}\\par Next}"), "", "",
             "application/rtf", "p Lift (Not at night) slowly. (x)\np Next\n");
    extracts(STR("{\\rtf1 }}}} stray"), "", "", "application/rtf", "p stray\n");
    refuses(repeated("{\\rtf1 ", "{", 100000, "x"), "", "", "invalid_file", "nested too deeply");
    refuses(STR("{\\rtf1 {\\*\\x hidden}}"), "", "", "empty_file", "no text");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_csv, begin, end), cmocka_unit_test_setup_teardown(test_json, begin, end),
        cmocka_unit_test_setup_teardown(test_xml, begin, end), cmocka_unit_test_setup_teardown(test_mail, begin, end),
        cmocka_unit_test_setup_teardown(test_rtf, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
