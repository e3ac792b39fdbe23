/* fiber_blocking(): a few helper threads, started when first needed. They run nothing but the given function; the
 * fiber is woken on the loop's own thread, told by an eventfd. */
#include "worker/fiber/impl.h"
#include "worker/fiber/loop.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { THREADS_MAX = 4 };

struct work {
    struct list link;
    void (*fn)(void *);
    void *arg;
    struct fiber *fiber;
    bool done; /* read and written by the loop's thread only */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct list todo, finished; /* under the lock */
    int idle;                   /* under the lock */
    bool stop;                  /* under the lock */
    pthread_t thread[THREADS_MAX];
    int n;
    int fd;
    struct event ev;
    bool watching;
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .more = PTHREAD_COND_INITIALIZER,
    .todo = {&pool.todo, &pool.todo},
    .finished = {&pool.finished, &pool.finished},
    .fd = -1,
};

static void *thread_main(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&pool.lock);
    while (!pool.stop) {
        struct list *n = list_pop(&pool.todo);
        if (!n) {
            pool.idle++;
            pthread_cond_wait(&pool.more, &pool.lock);
            pool.idle--;
            continue;
        }
        struct work *w = list_entry(n, struct work, link);
        pthread_mutex_unlock(&pool.lock);
        w->fn(w->arg);
        pthread_mutex_lock(&pool.lock);
        list_add_tail(&pool.finished, &w->link);
        uint64_t one = 1;
        while (write(pool.fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

static void on_finished(evutil_socket_t fd, short what, void *arg)
{
    (void)what, (void)arg;
    uint64_t count;
    struct list batch, *n;
    if (read(fd, &count, sizeof count) < 0)
        return;
    list_init(&batch);
    pthread_mutex_lock(&pool.lock);
    list_splice_tail(&batch, &pool.finished);
    pthread_mutex_unlock(&pool.lock);
    while ((n = list_pop(&batch))) {
        struct work *w = list_entry(n, struct work, link);
        w->done = true;
        fiber_wake(w->fiber);
    }
}

static bool watch(void)
{
    if (pool.watching)
        return true;
    if (pool.fd < 0)
        pool.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool.fd < 0)
        return false;
    event_assign(&pool.ev, loop_base(), pool.fd, EV_READ | EV_PERSIST, on_finished, NULL);
    pool.watching = event_add(&pool.ev, NULL) == 0;
    return pool.watching;
}

/* Signals are for the loop's thread: the helpers block all. */
static void start_thread(void)
{
    sigset_t everything, before;
    sigfillset(&everything);
    pthread_sigmask(SIG_SETMASK, &everything, &before);
    if (pthread_create(&pool.thread[pool.n], NULL, thread_main, NULL) == 0)
        pool.n++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

suspends void fiber_blocking(void (*fn)(void *), void *arg)
{
    struct work w = {.fn = fn, .arg = arg, .fiber = fiber_self()};
    bool queued = false;
    list_init(&w.link);
    if (w.fiber && watch()) {
        pthread_mutex_lock(&pool.lock);
        bool need = pool.idle == 0 && pool.n < THREADS_MAX;
        pthread_mutex_unlock(&pool.lock);
        if (need)
            start_thread();
        if (pool.n) {
            pthread_mutex_lock(&pool.lock);
            list_add_tail(&pool.todo, &w.link);
            pthread_cond_signal(&pool.more);
            pthread_mutex_unlock(&pool.lock);
            queued = true;
        }
    }
    if (!queued) { /* no thread to be had: late is better than never */
        fn(arg);
        return;
    }
    fiber_shield(1);
    while (!w.done)
        fiber_park("helper thread");
    fiber_shield(-1);
}

void blocking_fini(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.stop = true;
    pthread_cond_broadcast(&pool.more);
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < pool.n; i++)
        pthread_join(pool.thread[i], NULL);
    if (pool.watching)
        event_del(&pool.ev);
    if (pool.fd >= 0)
        close(pool.fd);
    pool.n = 0;
    pool.fd = -1;
    pool.stop = pool.watching = false;
}
