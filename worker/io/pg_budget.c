/* The budget of connections: database.max_connections holds over all workers of all generations, and of both masters
 * during an upgrade.
 *
 * Shared memory (common/places.h) has a place for each connection that may be open. A worker takes a place by exchanging
 * what is there for its own mark: of two who want the last place, one gets it and the other knows. It gives the place back
 * when the server has let go of the connection, which is later than PQfinish(); until then PostgreSQL counts it, too.
 *
 * A worker that dies gives nothing back. Who first sees that the owner of a place is dead notes the time; a while later,
 * when the server must have noticed as well, the place is free.
 *
 * Who needs a place and finds none looks again and again, and notes the time, too. Until it has found one, or has not
 * looked for a while, others make room for it (pg.c), and nobody who has waited for a shorter time takes a place before it:
 * so all get their turn, however many want more than there is. */
#include "worker/io/pg_impl.h"
#include "common/clock.h"
#include "common/places.h"
#include "common/scoreboard.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    RESERVE = 2,       /* places for the connections that a worker of the next generation boots with */
    ORPHAN_MS = 1500,  /* PG_CHECK_MS, and some time to end */
    MISSED_MS = 500,   /* who has not looked for so long does not wait any more */
    GOODBYE_MS = 2000, /* a server that has not closed by then is not waited for */
};

#define ORPHAN (UINT64_C(1) << 63) /* and the time in ms; else the mark of its owner; 0: free */

/* Can this place be taken? `*was` is what it holds then. */
static bool vacant(_Atomic uint64_t *place, uint64_t *was)
{
    *was = atomic_load(place);
    uint64_t now = (uint64_t)(clock_ns() / MS); /* not before: it is never less than a time that was found */
    if (*was == 0)
        return true;
    if (*was & ORPHAN)
        return now - (*was & ~ORPHAN) >= ORPHAN_MS;
    if (!places_lives(*was))
        atomic_compare_exchange_strong(place, was, ORPHAN | now);
    return false;
}

static int64_t places(const struct pg *pg)
{
    int64_t n = pg->cfg->database_max_connections;
    return n < PLACES_MAX ? n : PLACES_MAX;
}

static int64_t count_taken(const struct pg *pg, struct places *all)
{
    uint64_t was;
    int64_t n = 0;
    for (int64_t i = 0; i < places(pg); i++)
        n += !vacant(&all->place[i], &was);
    return n;
}

/* Does anybody wait, and has done so since before `since`? */
static bool somebody_waits(struct places *all, int64_t since)
{
    int64_t now = clock_ns();
    for (int i = 0; i < PLACES_OWNERS; i++) {
        struct places_owner *o = &all->owner[i];
        int64_t its = atomic_load(&o->since_ns);
        if (its && its < since && now - atomic_load(&o->looked_ns) < MISSED_MS * MS)
            return true;
    }
    return false;
}

static int find_place(struct pg *pg, struct places *all, bool spare, int64_t since)
{
    uint64_t was;
    if (spare && count_taken(pg, all) + RESERVE >= places(pg))
        return PG_NO_PLACE;
    if (somebody_waits(all, since))
        return PG_NO_PLACE;
    for (int i = 0; i < places(pg); i++)
        if (vacant(&all->place[i], &was) && atomic_compare_exchange_strong(&all->place[i], &was, places_mark()))
            return i;
    return PG_NO_PLACE;
}

bool pg_budget_take(struct pg *pg, bool spare, int *place)
{
    struct places *all = places_self();
    *place = PG_NO_PLACE;
    if (all) {
        struct places_owner *self = places_owner_self();
        int64_t now = clock_ns(), since = atomic_load(&self->since_ns);
        if (spare || !since || now - atomic_load(&self->looked_ns) >= MISSED_MS * MS)
            since = now;
        *place = find_place(pg, all, spare, since);
        if (!spare) {
            atomic_store(&self->looked_ns, now);
            atomic_store(&self->since_ns, *place < 0 ? since : 0);
        }
        if (*place < 0)
            return false;
    }
    STAT_ADD(store_connections, 1);
    return true;
}

void pg_budget_give(int place)
{
    struct places *all = places_self();
    if (all && place >= 0)
        atomic_store(&all->place[place], 0);
    STAT_SUB(store_connections, 1);
}

int pg_budget_refused(const struct pg *pg, struct err *e)
{
    err_set(e, ERR_OVERLOADED, "all connections to the database are in use");
    return err_log(e, "database.max_connections is %lld", (long long)pg->cfg->database_max_connections);
}

bool pg_budget_wanted(struct pg *pg)
{
    struct places *all = places_self();
    if (!all)
        return false;
    (void)count_taken(pg, all); /* places of the dead are noticed by those who live, not only when there is need */
    return somebody_waits(all, INT64_MAX);
}

/* ---- the end of a connection ---- */

struct pg_goodbye {
    struct list link; /* in pg->goodbyes */
    struct event ev;
    int place;
};

static void end_goodbye(struct pg_goodbye *g, int place)
{
    int fd = event_get_fd(&g->ev);
    event_del(&g->ev);
    close(fd);
    list_del(&g->link);
    pg_budget_give(place);
    free(g);
}

static void on_goodbye(evutil_socket_t fd, short what, void *arg)
{
    char scrap[4096];
    ssize_t n = 1;
    while (n > 0 && what & EV_READ)
        n = recv(fd, scrap, sizeof scrap, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    end_goodbye(arg, ((struct pg_goodbye *)arg)->place);
}

/* The server closes its end when the backend is gone, and not before. A second descriptor lets us see that: libpq's own
 * is closed by PQfinish(). The end of our sending is what a backend that is busy looks for (PG_CHECK_MS). */
void pg_hang_up(struct pg *pg, PGconn *c, int place)
{
    int fd = PQsocket(c) < 0 ? -1 : fcntl(PQsocket(c), F_DUPFD_CLOEXEC, 0);
    PQfinish(c);
    bool wait = !pg->closing && fd >= 0 && shutdown(fd, SHUT_WR) == 0;
    struct pg_goodbye *g = wait ? malloc(sizeof *g) : NULL;
    if (!g) {
        if (fd >= 0)
            close(fd);
        pg_budget_give(pg->closing ? PG_NO_PLACE : place); /* a place that is kept is free a while after our death */
        return;
    }
    g->place = place;
    list_add_tail(&pg->goodbyes, &g->link);
    event_assign(&g->ev, loop_base(), fd, EV_READ | EV_PERSIST, on_goodbye, g);
    event_add(&g->ev, &(struct timeval){.tv_sec = GOODBYE_MS / 1000});
}

void pg_forget_goodbyes(struct pg *pg)
{
    while (!list_empty(&pg->goodbyes))
        end_goodbye(list_entry(pg->goodbyes.next, struct pg_goodbye, link), PG_NO_PLACE);
}
