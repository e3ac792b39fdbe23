/* What the files of config/ share: the table as data, where values come from, and how a text becomes a value. Nobody
 * outside of config/ and its tests includes this. */
#pragma once
#include "common/arena.h"
#include "config/config.h"

enum config_type {
    CONFIG_INT,
    CONFIG_SIZE,
    CONFIG_TIME,
    CONFIG_AUTO,
    CONFIG_REAL,
    CONFIG_BOOL,
    CONFIG_ENUM,
    CONFIG_STR,
    CONFIG_SECRET,
    CONFIG_LIST
};

struct config_key_def {
    const char *section, *name, *full; /* "server", "bind", "server.bind" */
    const char *aliases;               /* further environment names, space separated */
    const char *def, *doc;
    const char *choices; /* ENUM: "a|b=synonym|c" */
    int64_t min, max;
    size_t offset; /* in struct config */
    enum config_type type;
    enum config_apply apply;
};
extern const struct config_key_def config_keys[KEY_COUNT];
/* The line of documentation of a section. */
const char *config_section_doc(const char *section);

/* Layers in order of precedence. */
enum config_layer { LAYER_DEFAULT, LAYER_FILE, LAYER_DOTENV, LAYER_ENV, LAYER_SET };

struct config_source {
    enum config_layer layer;
    const char *name; /* of the file or of the environment variable; lives as long as the configuration */
    int line, col;    /* 0: not in a file */
};

struct config_origin {
    struct arena arena; /* every string of the configuration */
    struct config_source of[KEY_COUNT];
};

/* Fails with a message that begins with the place: "ragd.yaml:3:5: ", "RAGD_SERVER_PORT: ", "--set: ". */
int config_fail(struct err *e, const struct config_source *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Parses `text` as the type of the key and stores it with its origin. */
must_use int config_set_text(struct config *cfg, enum config_key key, struct str text, const struct config_source *at,
                             struct err *e);
/* The elements of a LIST. */
must_use int config_set_list(struct config *cfg, enum config_key key, const struct str *v, size_t n,
                             const struct config_source *at, struct err *e);

/* Meaning beyond the type, key by key ("unix:" paths fit, networks parse, URLs normalised). Called by the two above. */
must_use int config_check_key(struct config *cfg, enum config_key key, const struct config_source *at, struct err *e);
/* Rules between keys, once all layers are in. */
must_use int config_check_all(struct config *cfg, struct err *e);

enum { CONFIG_ENV_NAME_MAX = 64 };
void config_env_name(enum config_key key, char out[CONFIG_ENV_NAME_MAX]); /* "RAGD_SERVER_BIND" */

/* "section.name", -1 if there is none. */
int config_find(struct str full);
/* The known key nearest to what somebody wrote, NULL if nothing is near. */
const char *config_nearest(struct str full);

must_use int config_yaml(struct config *cfg, const char *file, struct str text, struct err *e);
/* Either may be absent. `dotenv` is the text of the file called `dotenv_name`. */
must_use int config_env(struct config *cfg, char *const *environ, const char *dotenv_name, struct str dotenv,
                        struct err *e);

enum { CONFIG_FILE_MAX = 1 << 20 };
/* A whole file into the arena. `missing_ok`: a file that is not there gives *out = "" and *found = false. */
must_use int config_read_file(struct arena *a, const char *path, size_t max, struct str *out, bool *found,
                              struct err *e);

static inline void *config_value(const struct config *cfg, enum config_key key)
{
    return (char *)(uintptr_t)cfg + config_keys[key].offset;
}

/* The choices of an ENUM without synonyms: "error, warn, info". */
void config_print_choices(struct buf *out, const char *choices);
/* As it would stand in a file: 64K, 10s, auto. */
void config_print_number(struct buf *out, enum config_type type, int64_t v);
