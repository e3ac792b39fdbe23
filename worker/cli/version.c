#include "version.h"
#include "worker/cli/cli.h"
#include <cmark.h>
#include <event2/event.h>
#include <jansson.h>
#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <stdio.h>
#include <utf8proc.h>
#include <yaml.h>

static const char *pq_version(char *out, size_t cap)
{
    int v = PQlibVersion();
    snprintf(out, cap, "%d.%d", v / 10000, v % 10000);
    return out;
}

void cli_version(bool json)
{
    char pq[32];
    /* Those that can say what is linked. libstemmer and gumbo cannot. */
    const struct {
        const char *name, *version;
    } libraries[] = {
        {"libevent", event_get_version()},      {"libpq", pq_version(pq, sizeof pq)},
        {"sqlite", sqlite3_libversion()},       {"jansson", jansson_version_str()},
        {"libyaml", yaml_get_version_string()}, {"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)},
        {"cmark", cmark_version_string()},      {"utf8proc", utf8proc_version()},
    };
    size_t n = sizeof libraries / sizeof *libraries;
    if (!json) {
        printf("ragd %s (%s)\n", RAGD_VERSION, RAGD_COMMIT);
        return;
    }
    printf("{\"version\": \"%s\", \"commit\": \"%s\", \"compiler\": \"%s\", \"libraries\": {", RAGD_VERSION,
           RAGD_COMMIT, __VERSION__);
    for (size_t i = 0; i < n; i++)
        printf("%s\"%s\": \"%s\"", i ? ", " : "", libraries[i].name, libraries[i].version);
    printf("}}\n");
}
