#include "worker/embed/embed_wire.h"
#include "worker/io/base64.h"
#include "worker/io/json.h"
#include <endian.h>
#include <math.h>

enum { DEPTH_MAX = 16, REFUSAL_MAX = 4096 };

void embed_wire_write(struct buf *out, const struct embed_wire_request *q)
{
    struct buf text = {0};
    struct json_out o = json_out(out);
    jo_begin(&o, '{');
    jo_member(&o, "model"), jo_strz(&o, q->model);
    jo_member(&o, "encoding_format"), jo_strz(&o, q->base64 ? "base64" : "float");
    if (q->dimensions)
        jo_member(&o, "dimensions"), jo_i64(&o, q->dimensions);
    jo_member(&o, "input"), jo_begin(&o, '[');
    for (size_t i = 0; i < q->n; i++) {
        text.n = 0;
        buf_str(&text, q->prefix);
        buf_str(&text, q->text[i]);
        jo_str(&o, text.n ? buf_view(&text) : STR(" ")); /* an empty one would be refused */
    }
    jo_end(&o, ']');
    jo_end(&o, '}');
    buf_fini(&text);
}

/* ---- reading ---- */

static int nonsense(struct err *e, const char *what)
{
    err_set(e, ERR_PROVIDER, "the answer of the embedding server makes no sense");
    return err_log(e, "%s", what);
}

/* The length of a vector that came as an array or as little-endian floats in base64; 0 if it is none. */
static int length_of(const json_t *v)
{
    ptrdiff_t n = 0;
    if (json_is_array(v))
        n = (ptrdiff_t)json_array_size(v);
    else if (json_is_string(v))
        n = base64_decoded_len((struct str){json_string_value(v), json_string_length(v)});
    if (json_is_string(v))
        n = n % 4 ? 0 : n / 4;
    return n > 0 && n <= EMBED_DIM_MAX ? (int)n : 0;
}

static bool numbers(const json_t *v, float *out, int dim)
{
    if (json_is_string(v)) {
        base64_decode((struct str){json_string_value(v), json_string_length(v)}, (uint8_t *)out);
        for (int i = 0; i < dim; i++) {
            uint32_t bits;
            memcpy(&bits, &out[i], sizeof bits);
            bits = le32toh(bits);
            memcpy(&out[i], &bits, sizeof bits);
        }
        return true;
    }
    for (int i = 0; i < dim; i++) {
        const json_t *x = json_array_get(v, (size_t)i);
        if (!json_is_number(x))
            return false;
        out[i] = (float)json_number_value(x);
    }
    return true;
}

bool embed_wire_normalise(float *v, int dim)
{
    double sum = 0;
    for (int i = 0; i < dim; i++)
        sum += (double)v[i] * v[i];
    double by = 1 / sqrt(sum);
    if (!isfinite(by) || by == 0)
        return false;
    for (int i = 0; i < dim; i++)
        v[i] = (float)(v[i] * by);
    return true;
}

int embed_wire_read(struct arena *a, struct str body, size_t n, float **out, int *dim, int64_t *tokens, struct err *e)
{
    json_t *root;
    struct err why;
    if (json_parse_object(a, body, DEPTH_MAX, &root, &why))
        return nonsense(e, why.msg);
    const json_t *data = json_object_get(root, "data"), *usage = json_object_get(root, "usage");
    if (!json_is_array(data) || json_array_size(data) != n || n == 0)
        return nonsense(e, "not as many vectors as texts");
    int length = length_of(json_object_get(json_array_get(data, 0), "embedding"));
    if (!length)
        return nonsense(e, "no vector, or one of an impossible length");
    float *v = arena_alloc(a, n * (size_t)length * sizeof *v);
    bool *seen = arena_zalloc(a, n * sizeof *seen);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(data, i), *index = json_object_get(item, "index");
        const json_t *vector = json_object_get(item, "embedding");
        int64_t at = json_is_integer(index) ? json_integer_value(index) : (int64_t)i;
        if (at < 0 || (size_t)at >= n || seen[at])
            return nonsense(e, "the vectors are not numbered by their texts");
        if (length_of(vector) != length)
            return nonsense(e, "the vectors differ in length");
        seen[at] = true;
        float *place = v + (size_t)at * (size_t)length;
        if (!numbers(vector, place, length) || !embed_wire_normalise(place, length))
            return nonsense(e, "a vector does not consist of numbers, or of zeros only");
    }
    int64_t counted = json_integer_value(json_object_get(usage, "total_tokens"));
    *out = v;
    *dim = length;
    *tokens = counted > 0 ? counted : 0;
    return 0;
}

bool embed_wire_too_long(int status, struct str body)
{
    /* OpenAI and vLLM, Text Embeddings Inference, Ollama, llama.cpp, and those who wrap them */
    static const char *const words[] = {
        "context_length", "context length", "maximum context",     "too many tokens", "context size",
        "maximum input",  "max_tokens",     "must have less than", "maximum length",  "larger than the maximum"};
    static const char *const of_clients_only[] = {"too long", "too large"}; /* a server says so of much else */
    char z[REFUSAL_MAX];
    if (status == 413)
        return true;
    if (status != 400 && status != 422 && status != 500) /* llama.cpp says 500; 429 and 503 mean the rate */
        return false;
    str_copyz(z, sizeof z, body);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasestr(z, words[i]))
            return true;
    for (size_t i = 0; i < sizeof of_clients_only / sizeof *of_clients_only; i++)
        if (status != 500 && strcasestr(z, of_clients_only[i]))
            return true;
    return false;
}
