#include "master/activate.h"
#include "common/log.h"
#include "master/notify.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define STORED "bind=" /* begins the names of those that we have given away */

enum { FIRST_FD = 3, FDNAME_MAX = 255 };

/* A name there is printable ASCII without a colon. False: too long for one. */
static bool name_of(const char *key, char out[FDNAME_MAX + 1])
{
    size_t n = (size_t)snprintf(out, FDNAME_MAX + 1, STORED);
    for (const unsigned char *p = (const unsigned char *)key; *p; p++) {
        bool plain = *p > ' ' && *p < 127 && *p != ':' && *p != '%';
        if (n + (plain ? 1 : 3) > FDNAME_MAX)
            return false;
        n += (size_t)snprintf(out + n, FDNAME_MAX + 1 - n, plain ? "%c" : "%%%02X", *p);
    }
    return true;
}

/* The key in such a name; false: it is none. */
static bool key_of(struct str name, char out[LISTEN_NAME_MAX])
{
    size_t n = 0;
    if (!str_starts(name, STR(STORED)))
        return false;
    for (size_t i = sizeof STORED - 1; i < name.n && n < LISTEN_NAME_MAX - 1; n++) {
        unsigned char c = (unsigned char)name.p[i++];
        if (c == '%' && i + 2 <= name.n) {
            char hex[3] = {name.p[i], name.p[i + 1], 0};
            c = (unsigned char)strtoul(hex, NULL, 16);
            i += 2;
        }
        out[n] = (char)c;
    }
    out[n] = 0;
    return n > 0;
}

static uint64_t number_in(const char *variable)
{
    const char *text = getenv(variable);
    uint64_t n;
    return text && str_to_u64(str_of(text), &n) ? n : 0;
}

static int take_one(struct listen_set *set, int fd, struct str name, struct err *e)
{
    char key[LISTEN_NAME_MAX];
    struct err why = {.code = ERR_NONE};
    if (listen_adopt(set, fd, key_of(name, key) ? key : NULL, str_eq(name, STR("admin")), &why) == 0)
        return 0;
    return err_set(e, ERR_VALIDATION,
                   "LISTEN_FDS: %s (name '%.*s'); in the socket unit only ListenStream= with Accept=no makes sense",
                   why.msg, (int)(name.n < 60 ? name.n : 60), name.p);
}

int activate_take(struct listen_set *set, struct err *e)
{
    const char *text = getenv("LISTEN_FDNAMES");
    char *names = strdup(text ? text : "");
    uint64_t n = number_in("LISTEN_FDS"), pid = number_in("LISTEN_PID");
    bool ours = pid == (uint64_t)getpid();
    int rc = 0;
    if (!names)
        abort();
    if (n && !ours)
        log_warn("LISTEN_FDS is ignored: LISTEN_PID is %llu, and this is pid %d; a script in between has to exec ragd",
                 (unsigned long long)pid, (int)getpid());
    /* Whoever comes after us is not meant. */
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    struct str rest = str_of(names);
    for (uint64_t i = 0; rc == 0 && ours && i < n; i++) /* ends at the first that is none, or at LISTEN_MAX */
        rc = take_one(set, FIRST_FD + (int)i, str_cut(&rest, ':'), e);
    free(names);
    return rc;
}

static bool has(const struct listen_set *set, const struct bound *b)
{
    for (int i = 0; set && i < set->n; i++)
        if (set->v[i].l.fd == b->l.fd)
            return true;
    return false;
}

void activate_store(struct listen_set *now, struct listen_set *before)
{
    char name[FDNAME_MAX + 1];
    bool offered = number_in("FDSTORE") > 0;
    for (int i = 0; before && i < before->n; i++) {
        struct bound *b = &before->v[i];
        if (!b->stored || has(now, b) || !name_of(b->key, name))
            continue;
        notify_send("FDSTOREREMOVE=1\nFDNAME=%s", name);
        b->stored = false; /* its file goes with it */
    }
    for (int i = 0; offered && i < now->n; i++) {
        struct bound *b = &now->v[i];
        if (b->activated || b->stored || !name_of(b->key, name))
            continue;
        b->stored = notify_send_fd(b->l.fd, "FDSTORE=1\nFDNAME=%s", name);
    }
}
