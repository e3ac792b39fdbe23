#include "master/pressure.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/procfile.h"
#include "master/master.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

double pressure_parse(struct str text)
{
    static const char name[] = "full avg10=";
    char number[16];
    while (text.n) {
        struct str line = str_cut(&text, '\n');
        if (!str_starts(line, STR("full avg10=")))
            continue;
        line = str_sub(line, sizeof name - 1, SIZE_MAX);
        str_copyz(number, sizeof number, str_cut(&line, ' '));
        char *end;
        double percent = strtod(number, &end);
        return end != number && !*end && percent >= 0 && percent <= 100 ? percent : -1;
    }
    return -1;
}

/* In a container the path that /proc shows may be the host's: then the root of the mount is ours. */
static void find_file(char *path, size_t cap)
{
    char text[4096];
    struct str rest = procfile_read("/proc/self/cgroup", text, sizeof text);
    while (rest.n) {
        struct str line = str_cut(&rest, '\n');
        if (!str_starts(line, STR("0::")))
            continue;
        line = str_sub(line, 3, SIZE_MAX);
        snprintf(path, cap, "/sys/fs/cgroup" STR_FMT "/memory.pressure", STR_ARG(line));
        if (access(path, R_OK) == 0)
            return;
        snprintf(path, cap, "/sys/fs/cgroup/memory.pressure");
        if (access(path, R_OK) == 0)
            return;
    }
    snprintf(path, cap, "/proc/pressure/memory");
}

static double look(struct master *m)
{
    struct pressure *p = &m->pressure;
    const char *fault = m->gen->cfg->debug_faults ? getenv("RAGD_FAULT_PRESSURE") : NULL;
    char text[512];
    if (!*p->path)
        find_file(p->path, sizeof p->path);
    double percent = pressure_parse(procfile_read(fault ? fault : p->path, text, sizeof text));
    if (percent < 0 && !p->blind)
        log_msg(config_given(m->gen->cfg, KEY_server_memory_pressure) ? LOG_WARN : LOG_DEBUG,
                "server.memory_pressure has no effect: %s cannot be read (CONFIG_PSI, psi=1)", p->path);
    p->blind = percent < 0;
    return percent;
}

void pressure_tick(struct master *m, int64_t now)
{
    double limit = m->gen->cfg->server_memory_pressure;
    if (now < m->pressure.due_ns)
        return;
    m->pressure.due_ns = now + SEC;
    double percent = limit > 0 ? look(m) : -1;
    bool before = atomic_load(&m->sb->shedding), after = percent >= (before ? limit / 2 : limit) && limit > 0;
    if (after == before)
        return;
    atomic_store(&m->sb->shedding, after);
    if (after) {
        atomic_fetch_add(&m->sb->sheddings, 1);
        log_warn("short of memory: nobody could run for %.0f%% of the last 10 s (server.memory_pressure is %g); "
                 "requests are refused",
                 percent, limit);
    } else {
        log_info("requests are answered again: the want of memory is over");
    }
}
