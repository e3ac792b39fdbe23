#include "worker/llm/llm_wire.h"
#include "worker/io/json.h"

enum { DEPTH_MAX = 32 };

void llm_wire_write(struct buf *out, const struct llm_wire_request *q)
{
    struct json_out o = json_out(out);
    jo_begin(&o, '{');
    jo_member(&o, "model"), jo_str(&o, q->model);
    jo_member(&o, "messages"), jo_begin(&o, '[');
    for (size_t i = 0; i < q->n; i++) {
        jo_begin(&o, '{');
        jo_member(&o, "role"), jo_strz(&o, q->message[i].role);
        jo_member(&o, "content"), jo_str(&o, q->message[i].content);
        jo_end(&o, '}');
    }
    jo_end(&o, ']');
    if (q->completion_tokens)
        jo_member(&o, "max_completion_tokens"), jo_i64(&o, q->max_tokens);
    else
        jo_member(&o, "max_tokens"), jo_i64(&o, q->max_tokens);
    if (q->temperature >= 0)
        jo_member(&o, "temperature"), jo_f64(&o, q->temperature);
    jo_member(&o, "stream"), jo_bool(&o, true);
    jo_member(&o, "stream_options"), jo_raw(&o, STR("{\"include_usage\":true}"));
    jo_end(&o, '}');
}

void llm_reader_init(struct llm_reader *r, struct str content_type)
{
    struct str rest = content_type, type = str_trim(str_cut(&rest, ';'));
    *r = (struct llm_reader){.whole = str_ieq(type, STR("application/json")), .usage = {-1, -1}};
}

void llm_reader_fini(struct llm_reader *r)
{
    buf_fini(&r->line);
    buf_fini(&r->text);
}

static int nonsense(struct err *e, const char *what)
{
    err_set(e, ERR_PROVIDER, "the answer of the model makes no sense");
    return err_log(e, "%s", what);
}

static void take_usage(struct llm_reader *r, const json_t *usage)
{
    const json_t *prompt = json_object_get(usage, "prompt_tokens"), *done = json_object_get(usage, "completion_tokens");
    if (json_is_integer(prompt) && json_integer_value(prompt) >= 0)
        r->usage.prompt_tokens = json_integer_value(prompt);
    if (json_is_integer(done) && json_integer_value(done) >= 0)
        r->usage.completion_tokens = json_integer_value(done);
}

/* A chunk of a stream says `delta`, a whole answer `message`. Usage comes with the last, or after it without a choice. */
static int take(struct llm_reader *r, struct str json, struct err *e)
{
    struct arena a = {0};
    struct err why;
    json_t *root;
    int rc = 0;
    if (json_parse_object(&a, json, DEPTH_MAX, &root, &why)) {
        arena_fini(&a);
        return nonsense(e, why.msg);
    }
    const json_t *error = json_object_get(root, "error");
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    const json_t *said = json_object_get(choice, r->whole ? "message" : "delta");
    const json_t *content = json_object_get(said, "content");
    if (error && !json_is_null(error)) {
        const char *message = json_string_value(json_object_get(error, "message"));
        err_set(e, ERR_PROVIDER, "the model broke its answer off with an error");
        rc = err_log(e, "%.250s", message ? message : "without a message");
    } else if (r->whole && !json_is_string(content)) {
        rc = nonsense(e, "no choices[0].message.content");
    }
    if (rc == 0 && json_is_string(content))
        buf_add(&r->text, json_string_value(content), json_string_length(content));
    if (json_is_string(json_object_get(choice, "finish_reason")) || r->whole)
        r->finished = true;
    take_usage(r, json_object_get(root, "usage"));
    arena_fini(&a);
    return rc;
}

/* Comments, `event:` and the rest of the format have no meaning here; an event's data is one line in practice. */
static int line(struct llm_reader *r, struct str s, struct err *e)
{
    if (s.n && s.p[s.n - 1] == '\r')
        s.n--;
    if (!str_starts(s, STR("data:")))
        return 0;
    s = str_trim(str_sub(s, 5, SIZE_MAX));
    if (str_eqz(s, "[DONE]")) {
        r->finished = true;
        return 0;
    }
    return s.n ? take(r, s, e) : 0;
}

int llm_reader_feed(struct llm_reader *r, struct str piece, struct err *e)
{
    while (piece.n) {
        const char *nl = r->whole ? NULL : memchr(piece.p, '\n', piece.n);
        struct str part = str_sub(piece, 0, nl ? (size_t)(nl - piece.p) : piece.n);
        piece = str_sub(piece, part.n + (nl ? 1 : 0), SIZE_MAX);
        if (part.n > LLM_EVENT_MAX - r->line.n)
            return nonsense(e, "an event of more than 1 MB");
        buf_str(&r->line, part);
        if (!nl)
            break;
        struct str s = buf_view(&r->line);
        r->line.n = 0; /* the bytes stay until the next is added */
        if (line(r, s, e))
            return -1;
    }
    return 0;
}

int llm_reader_end(struct llm_reader *r, struct err *e)
{
    struct str s = buf_view(&r->line);
    r->line.n = 0;
    if (s.n && (r->whole ? take(r, s, e) : line(r, s, e)))
        return -1;
    return r->finished ? 0 : err_set(e, ERR_PROVIDER, "the answer of the model broke off");
}
