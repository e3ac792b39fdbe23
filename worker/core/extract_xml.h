/* XML, event by event, for the readers of formats that are made of it. Names come without their namespace prefix. Nothing
 * is fetched, no entity may be declared, and nesting is bounded: what would grow, or wants files, is refused. */
#pragma once
#include "common/str.h"

struct source;

struct xml_events {
    /* `attr` is NULL-terminated: name, value, name, value … valid during the call. */
    void (*open)(void *arg, const char *name, const char **attr);
    void (*close)(void *arg, const char *name);
    void (*text)(void *arg, struct str text); /* in pieces; NULL: not wanted */
};
/* 0, or -1 after refuse() with `what` in the reason. */
int xml_read(struct source *s, struct str in, const char *what, const struct xml_events *events, void *arg);
const char *xml_attr(const char **attr, const char *name); /* NULL: absent */
