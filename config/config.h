/* Configuration. One object, built from the table in keys.def by layers: default < file < environment <
 * command line. Every error names key, file, line and column, or the environment name, and the remedy. The object
 * lives as long as a generation of workers and does not change, except by config_push(). */
#pragma once
#include "common/buf.h"
#include "common/err.h"

struct config_list {
    char **v;
    int n;
};

#define CONFIG_C_INT    int64_t
#define CONFIG_C_SIZE   int64_t
#define CONFIG_C_TIME   int64_t
#define CONFIG_C_AUTO   int64_t
#define CONFIG_C_REAL   double
#define CONFIG_C_BOOL   bool
#define CONFIG_C_ENUM   int
#define CONFIG_C_STR    const char *
#define CONFIG_C_SECRET const char *
#define CONFIG_C_LIST   struct config_list

enum config_key {
#define SECTION(section, doc)
#define KEY(section, name, type, def, min, max, env, apply, doc) KEY_##section##_##name,
#include "config/keys.def"
#undef KEY
    KEY_COUNT
};

struct config_origin; /* where each value came from, for `dump`, `diff` and messages */

struct config {
#define KEY(section, name, type, def, min, max, env, apply, doc) CONFIG_C_##type section##_##name;
#include "config/keys.def"
#undef KEY
#undef SECTION
    struct config_origin *origin;
    char *file; /* path given with -c, or NULL */
};

/* What the command line says. */
struct config_args {
    const char *file;       /* -c FILE; NULL: none */
    const char *const *set; /* --set section.key=value, in order */
    int n_set;
    char *const *environ; /* NULL: none */
    const char *dotenv;   /* a file of NAME=value lines that stand in for absent environment names; NULL: none */
};

/* On success *out is the caller's, ended with config_free(). Errors: ERR_VALIDATION with "file:line:col: …". */
must_use int config_load(const struct config_args *args, struct config **out, struct err *e);
/* For those who only look for a running server: what cannot be read is left out. -1 with the first error, and *out is
 * the caller's all the same. */
int config_load_partly(const struct config_args *args, struct config **out, struct err *e);
void config_free(struct config *cfg);

/* Worker counts with `auto` resolved by the CPUs of the cgroup quota; HTTP workers stay within server.max_workers. */
int config_http_workers(const struct config *cfg);
int config_ingest_workers(const struct config *cfg);

/* What is legal but probably not meant, one line each; nothing is added when all is well. */
void config_warnings(const struct config *cfg, struct buf *out);

/* What a reload needs to know. */
enum config_apply { CONFIG_HOT, CONFIG_RESPAWN, CONFIG_LISTEN, CONFIG_REFUSE };
enum config_apply config_key_apply(enum config_key key);
const char *config_apply_text(enum config_apply apply);           /* "new workers" */
bool config_given(const struct config *cfg, enum config_key key); /* somebody set it: it is not just the default */
/* Where an error begins with the name of such a key, puts its place before it: "ragd.yaml:3:5: hooks.ready: …". -1. */
int config_locate(const struct config *cfg, struct err *e);
bool config_same(const struct config *a, const struct config *b, enum config_key key);

/* "section.key=value" as --set takes it, secrets as they are: for this server alone. */
void config_assignment(const struct config *cfg, enum config_key key, struct buf *out);
/* The configuration that was made of `file` (may be NULL), from assignments of all the keys that were given. */
must_use int config_restore(const char *file, const char *const *set, int n_set, struct config **out, struct err *e);

/* The keys that are CONFIG_HOT as "section.key=value" lines, for config_push() in another process. */
void config_push_lines(const struct config *cfg, struct buf *out);
/* Sets those lines. A key that is unknown here, or not hot, is left out: the sender may be of another release. */
must_use int config_push(struct config *cfg, struct str lines, struct err *e);

enum { CONFIG_SHA256_LEN = 64 };
/* A fingerprint of all values in effect, in hexadecimal. Equal values give equal ones, wherever they came from. Takes some
 * 10 ms when there is a password. */
void config_sha256(const struct config *cfg, char out[CONFIG_SHA256_LEN + 1]);

/* Effective configuration as YAML, secrets redacted, each line with its origin as a comment. The output is a valid
 * configuration file again, but for passwords. */
void config_dump(const struct config *cfg, struct buf *out);
void config_dump_json(const struct config *cfg, struct buf *out);
/* The annotated example file, all keys at their defaults; tests compare it with config/ragd.example.yaml. */
void config_example(struct buf *out);
/* The reference table of all keys as Markdown, for the README. */
void config_reference(struct buf *out);
/* Value of one key as text. For SECRETs the redacted form. */
void config_text(const struct config *cfg, enum config_key key, struct buf *out);
const char *config_key_name(enum config_key key); /* "server.bind" */

/* A database URL with its password replaced, for logs. */
void config_redact_url(const char *url, struct buf *out);
