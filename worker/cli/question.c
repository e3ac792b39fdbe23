#include "worker/cli/question.h"

enum { OWN_MAX = 8 };

static const struct option common[] = {
    {"collection", required_argument, NULL, 'c'},
    {"top-k", required_argument, NULL, 'k'},
    {"mode", required_argument, NULL, 'm'},
};
enum { N_COMMON = sizeof common / sizeof *common };

static int read_option(struct question *q, int c, const char *command, const struct config *cfg)
{
    if (c == 'k')
        return session_number(command, "--top-k", optarg, 1, cfg->limits_top_k, &q->top_k) ? 0 : CLI_USAGE;
    if (c == 'm' && (!retrieve_mode_parse(str_of(optarg), &q->mode) || q->mode == RETRIEVE_metadata))
        return session_usage(command, "--mode is hybrid, lexical or vector");
    if (c == 'c' && q->n_collections == QUESTION_COLLECTIONS_MAX)
        return session_usage(command, "at most %d collections can be named", (int)QUESTION_COLLECTIONS_MAX);
    if (c == 'c')
        q->collection[q->n_collections++] = optarg;
    return c == '?' ? CLI_USAGE : 0;
}

int question_read(struct question *q, int argc, char **argv, const struct config *cfg, const struct option *own,
                  const char *what)
{
    struct option table[N_COMMON + OWN_MAX + 1] = {0};
    int c;
    memcpy(table, common, sizeof common);
    for (size_t i = 0; i < OWN_MAX && own[i].name; i++)
        table[N_COMMON + i] = own[i];
    while ((c = session_option(argc, argv, table)) != -1)
        if (read_option(q, c, argv[0], cfg))
            return CLI_USAGE;
    if (optind == argc)
        return session_usage(argv[0], "%s is missing", what);
    for (int i = optind; i < argc; i++)
        buf_printf(&q->text, "%s%s", i > optind ? " " : "", argv[i]);
    return str_is_utf8(buf_view(&q->text)) ? 0 : session_usage(argv[0], "%s is not valid UTF-8", what);
}

void question_fini(struct question *q)
{
    buf_fini(&q->text);
}

suspends int question_query(const struct question *q, struct session *s, struct uuid *ids, struct retrieve_query *out,
                            struct err *e)
{
    if (session_collections(s, q->collection, q->n_collections, ids, e))
        return -1;
    *out = (struct retrieve_query){
        .mode = q->mode,
        .query = buf_view(&q->text),
        .collections = ids,
        .n_collections = (size_t)q->n_collections,
        .top_k = q->top_k,
    };
    return 0;
}

struct str question_title(const struct store_document *d)
{
    return d->title.n ? d->title : d->filename.n ? d->filename : STR("(no title)");
}
