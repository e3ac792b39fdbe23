/* Redis: the only user of hiredis, and of that only its reader of replies and its writer of commands. One `struct redis`
 * per process holds one connection, made at the first call; the commands of a loop turn leave in one write.
 *
 * No call waits longer than cache.timeout. A server that closed the connection, refused it or did not answer in that
 * time is away: calls fail at once, until a connection that was made anew in the background, with back-off, has answered
 * a PING. So an outage costs a caller one timeout at most. Calls are never sent twice.
 *
 * Errors: ERR_NOT_READY when the server is away or says that it cannot answer now; ERR_OVERLOADED when cache.max_queue
 * calls wait; ERR_DEADLINE, ERR_CANCELED; ERR_INTERNAL when it refuses a command. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"

struct redis;

/* Reads cache.* of `cfg`, which must outlive it. ERR_VALIDATION: the URL or cache.ca_file cannot be used. */
must_use int redis_open(const struct config *cfg, struct redis **out, struct err *e);
must_use int redis_check(const struct config *cfg, struct err *e); /* what redis_open() would say */
void redis_close(struct redis *r); /* callers that still wait get ERR_CANCELED; NULL accepted */

enum redis_type { REDIS_NIL, REDIS_STRING, REDIS_INTEGER, REDIS_ARRAY, REDIS_ERROR };
struct redis_value {
    enum redis_type type;
    int64_t i;             /* INTEGER */
    struct str s;          /* STRING, also a status; ERROR */
    struct redis_value *v; /* ARRAY */
    size_t n;
};

/* One command. The reply is in the arena; it is never REDIS_ERROR. */
suspends must_use int redis_call(struct redis *r, struct arena *a, const struct str *argv, size_t n,
                                 struct redis_value *out, struct err *e);

/* One command whose reply nobody waits for; commands happen in the order in which they were given. 0: it will be sent,
 * if the connection lasts. */
must_use int redis_post(struct redis *r, const struct str *argv, size_t n, struct err *e);
