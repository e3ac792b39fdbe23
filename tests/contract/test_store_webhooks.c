/* Webhooks: their settings, the deliveries that the end of a job makes, and the tries of those. */
#include "tests/contract/contract.h"
#include "worker/io/json.h"

#define SECOND 1000000LL
static const struct uuid me = {{1}};

static struct store_webhook a_webhook(struct world *w, const char *events)
{
    struct store_webhook in = {.url = STR("http://receiver.example/x"),
                               .events = str_of(events),
                               .secret = STR("whsec_c2VjcmV0"),
                               .headers = STR("{\"X-Tenant\":\"a\"}"),
                               .enabled = true},
                         out;
    ok(w, GET(w, webhook_create, &in, 100, &out));
    return out;
}

static struct store_webhook webhook_of(struct world *w, const struct uuid *id)
{
    struct store_webhook out;
    ok(w, GET(w, webhook_get, id, &out));
    return out;
}

/* Its deliveries, newest first. */
static struct store_delivery *deliveries(struct world *w, const struct store_webhook *h, size_t want)
{
    struct store_delivery *d;
    size_t n;
    bool more;
    ok(w, GET(w, delivery_list, &h->id, NULL, 100, &d, &n, &more));
    same(w, n, want);
    must(w, !more);
    return d;
}

static size_t take(struct world *w, int64_t lease_us, int max, int each, struct store_delivery **d)
{
    size_t n;
    ok(w, GET(w, delivery_take, lease_us, max, each, d, &n));
    return n;
}

static void test_delivery(struct world *w, const struct store_webhook *h)
{
    struct store_delivery in = {.type = STR("webhook.test"), .data = STR("{\"a\":1}")}, out;
    ok(w, GET(w, delivery_create, &h->id, &in, &out));
}

/* One step of at most `max`. How many it was; *dropped of them for want of room. */
static int64_t sweep(struct world *w, int64_t keep_us, int64_t max_waiting, int max, int64_t *dropped)
{
    int64_t done;
    ok(w, DO(w, delivery_sweep, keep_us, max_waiting, max, &done, dropped));
    return done;
}

#define NO_STEP(w, max_waiting) same(w, sweep(w, 3600 * SECOND, max_waiting, 10, &(int64_t){0}), 0)

static bool end_try(struct world *w, const struct store_delivery *d, enum delivery_state state, int64_t delay_us)
{
    bool disabled = false;
    struct store_delivery_end in = {.no = d->no,
                                    .tries = d->tries,
                                    .state = state,
                                    .delay_us = delay_us,
                                    .status = state == DELIVERY_delivered ? 204 : 500,
                                    .error = state == DELIVERY_delivered ? STR("") : STR("status 500")};
    ok(w, DO(w, delivery_end, &in, &disabled));
    return disabled;
}

static json_t *member(struct world *w, struct str text, const char *object, const char *name)
{
    json_t *data;
    ok(w, json_parse_object(&w->a, text, 16, &data, &w->e));
    return json_object_get(json_object_get(data, object), name);
}
#define same_member(w, d, object, name, want) \
    same_str(w, str_of(json_string_value(member(w, (d)->data, object, name))), want)

static void settings_are_kept(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[\"job.*\"]"), more = a_webhook(w, "[]"), now, *list;
    struct store_webhook_patch p = {.set_url = true,
                                    .url = STR("https://other.example/"),
                                    .set_secret = true,
                                    .secret = STR("whsec_b3RoZXI="),
                                    .set_enabled = true};
    struct store_page page = {.limit = 1};
    size_t n;
    bool has_more;
    same(w, h.version, 1);
    must(w, h.enabled && !h.last_try_us && uuid_time_us(&h.id) == h.updated_us);
    same_str(w, h.headers, "{\"X-Tenant\":\"a\"}");
    fails(w, ERR_QUOTA, GET(w, webhook_create, &h, 2, &now));
    ok(w, GET(w, webhook_list, &page, &list, &n, &has_more));
    must(w, n == 1 && has_more && uuid_eq(&list[0].id, &more.id));
    page.has_after = true;
    page.after = more.id;
    ok(w, GET(w, webhook_list, &page, &list, &n, &has_more));
    must(w, n == 1 && !has_more && uuid_eq(&list[0].id, &h.id));
    fails(w, ERR_VERSION, GET(w, webhook_patch, &h.id, &p, 7, &now));
    ok(w, GET(w, webhook_patch, &h.id, &p, 1, &now));
    same(w, now.version, 2);
    must(w, !now.enabled);
    same_str(w, now.url, "https://other.example/");
    same_str(w, now.secret, "whsec_b3RoZXI=");
    same_str(w, now.events, "[\"job.*\"]");
    fails(w, ERR_CONFLICT, GET(w, delivery_create, &h.id, &(struct store_delivery){.data = STR("{}")}, NULL));
    fails(w, ERR_VERSION, DO(w, webhook_delete, &h.id, 1));
    ok(w, DO(w, webhook_delete, &h.id, 2));
    fails(w, ERR_NOT_FOUND, DO(w, webhook_delete, &h.id, 0));
    fails(w, ERR_NOT_FOUND, GET(w, webhook_get, &h.id, &now));
    fails(w, ERR_NOT_FOUND, GET(w, webhook_patch, &h.id, &p, 0, &now));
    fails(w, ERR_NOT_FOUND, GET(w, delivery_create, &h.id, &(struct store_delivery){.data = STR("{}")}, NULL));
    fails(w, ERR_NOT_FOUND, GET(w, delivery_list, &h.id, NULL, 1, &(struct store_delivery *){0}, &n, &has_more));
}

static void a_ready_document_is_told(struct world *w)
{
    struct store_webhook all = a_webhook(w, "[\"document.ready\",\"document.failed\",\"job.*\"]");
    struct store_webhook some = a_webhook(w, "[\"document.*\"]"), none = a_webhook(w, "[\"job.failed\"]");
    struct store_collection c = a_collection(w, "c");
    struct store_document_new in = new_document(&c, "text");
    struct store_document d;
    enum store_created what;
    struct store_job job;
    in.external_id = STR("mine");
    in.by_external_id = true;
    in.metadata = STR("{\"floor\":2}");
    ok(w, GET(w, document_create, &in, &d, &what, &job));
    const char *terms[] = {"one"};
    index_document(w, &d.id, terms, 1);
    struct store_delivery *told = deliveries(w, &all, 2);
    char id[UUID_TEXT_LEN + 1] = {0};
    uuid_text(&d.id, id);
    same_str(w, told[0].type, "job.succeeded");
    same_str(w, told[1].type, "document.ready");
    must(w, told[0].state == DELIVERY_waiting && told[0].tries == 0 && told[0].due_us == told[0].created_us);
    for (int i = 0; i < 2; i++) {
        same_member(w, &told[i], "document", "id", id);
        same_member(w, &told[i], "document", "status", "ready");
        same_member(w, &told[i], "document", "external_id", "mine");
        same_member(w, &told[i], "document", "filename", "a.txt");
        same(w, json_integer_value(member(w, told[i].data, "document", "chunks")), 1);
        same(w, json_integer_value(json_object_get(member(w, told[i].data, "document", "metadata"), "floor")), 2);
        must(w, json_is_null(member(w, told[i].data, "document", "last_error")));
        same_member(w, &told[i], "job", "type", "ingest");
        same_member(w, &told[i], "job", "status", "succeeded");
        same_member(w, &told[i], "job", "document_id", id);
        same(w, json_integer_value(member(w, told[i].data, "job", "attempts")), 1);
    }
    same_str(w, deliveries(w, &some, 1)[0].type, "document.ready");
    deliveries(w, &none, 0);
    must(w, !uuid_eq(&told[0].id, &told[1].id));
}

static void a_failed_document_is_told(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[\"document.failed\",\"job.failed\"]");
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "text");
    struct store_job j = lease(w, &me);
    ok(w, DO(w, job_finish, &j.id, &me, JOB_failed, STR("bad_pdf"), STR("extract"), STR("it is \"broken\""), 3));
    must(w, document_of(w, &d.id).state == DOCUMENT_failed);
    struct store_delivery *told = deliveries(w, &h, 2);
    same_str(w, told[0].type, "job.failed");
    same_str(w, told[1].type, "document.failed");
    for (int i = 0; i < 2; i++) {
        same_member(w, &told[i], "document", "status", "failed");
        json_t *error = member(w, told[i].data, i ? "document" : "job", i ? "last_error" : "error");
        same_str(w, str_of(json_string_value(json_object_get(error, "code"))), "bad_pdf");
        same_str(w, str_of(json_string_value(json_object_get(error, "message"))), "it is \"broken\"");
    }
}

/* A job that is put back has not ended, whatever its worker said. */
static void what_is_put_back_is_not_told(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[\"document.*\",\"job.*\"]");
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "text");
    struct store_job j = lease(w, &me);
    ok(w, DO(w, job_put_back, &j.id, &me, 0, true, STR(""), STR(""), STR("")));
    j = lease(w, &me);
    behind_its_back(w, "UPDATE documents SET content_version = 2", "UPDATE documents SET content_version = 2");
    ok(w, DO(w, job_finish, &j.id, &me, JOB_failed, STR("x"), STR("x"), STR("x"), 0));
    same(w, job_of(w, &j.id).state, JOB_queued);
    j = lease(w, &me);
    struct store_chunk_new k = chunk_of("one");
    struct store_index_commit in = {.chunks = &k, .n = 1, .content_version = 1, .text = STR("t")};
    fails(w, ERR_CONFLICT, DO(w, job_commit_index, &j.id, &me, &in));
    same(w, job_of(w, &j.id).state, JOB_queued);
    deliveries(w, &h, 0);
    j = lease(w, &me);
    in.content_version = 2;
    in.vectors_due = true;
    ok(w, DO(w, job_commit_index, &j.id, &me, &in));
    deliveries(w, &h, 0);
    ok(w, DO(w, job_finish, &j.id, &me, JOB_succeeded, STR(""), STR(""), STR(""), 0));
    must(w, document_of(w, &d.id).state == DOCUMENT_ready);
    deliveries(w, &h, 2);
}

static void other_jobs_are_told(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[\"document.ready\",\"job.*\"]");
    struct store_collection c = a_collection(w, "c");
    struct store_document d = a_document(w, &c, "text");
    struct store_job j, out;
    ok(w, GET(w, job_cancel, &d.job, &out));
    struct store_delivery *told = deliveries(w, &h, 1);
    same_str(w, told->type, "job.cancelled");
    same_member(w, told, "document", "status", "cancelled");
    ok(w, GET(w, job_create, STR("fsck"), NULL, STR("{}"), &out));
    j = lease(w, &me);
    ok(w, DO(w, job_finish, &j.id, &me, JOB_succeeded, STR(""), STR(""), STR("{\"missing\":0}"), 0));
    told = deliveries(w, &h, 2);
    same_str(w, told[0].type, "job.succeeded");
    same_member(w, &told[0], "job", "type", "fsck");
    must(w, strncmp(told[0].data.p, "{\"document\" : null", 18) == 0 ||
                str_starts(told[0].data, STR("{\"document\":null")));
    ok(w, GET(w, job_retry, &d.job, &out));
    ok(w, DO(w, document_delete, &d.id, 0));
    told = deliveries(w, &h, 3);
    same_str(w, told[0].type, "job.cancelled");
    json_t *error = member(w, told[0].data, "job", "error");
    same_str(w, str_of(json_string_value(json_object_get(error, "code"))), "document_deleted");
    must(w, json_is_string(member(w, told[0].data, "document", "id")));
    must(w, json_is_null(member(w, told[0].data, "document", "filename")));
}

static void a_disabled_one_is_told_nothing(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[\"job.*\"]"), now;
    struct store_collection c = a_collection(w, "c");
    struct store_job out;
    struct store_delivery *d;
    struct store_webhook_patch off = {.set_enabled = true}, on = {.set_enabled = true, .enabled = true};
    struct store_document first = a_document(w, &c, "a"), second = a_document(w, &c, "b");
    ok(w, GET(w, job_cancel, &first.job, &out));
    ok(w, GET(w, webhook_patch, &h.id, &off, 0, &now));
    ok(w, GET(w, job_cancel, &second.job, &out));
    deliveries(w, &h, 1);
    same(w, take(w, SECOND, 10, 10, &d), 0);
    ok(w, GET(w, webhook_patch, &h.id, &on, 0, &now));
    same(w, take(w, SECOND, 10, 10, &d), 1); /* it has waited */
}

static void a_try_is_leased(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[\"job.*\"]"), now;
    struct store_delivery *d, *again, *none;
    bool disabled;
    test_delivery(w, &h);
    same(w, take(w, SECOND / 20, 10, 10, &d), 1);
    must(w, d->state == DELIVERY_sending && d->tries == 1 && uuid_eq(&d->hook.id, &h.id));
    same_str(w, d->hook.url, "http://receiver.example/x");
    same_str(w, d->hook.secret, "whsec_c2VjcmV0");
    same_str(w, d->hook.headers, "{\"X-Tenant\":\"a\"}");
    same_str(w, d->type, "webhook.test");
    same_str(w, d->data, "{\"a\":1}");
    while (take(w, 60 * SECOND, 10, 10, &again) == 0) /* its worker has died: the lease runs out */
        must(w, fiber_sleep(MS) == 0);
    must(w, again->tries == 2 && uuid_eq(&again->id, &d->id) && again->created_us == d->created_us);
    struct store_delivery_end late = {.no = d->no, .tries = d->tries, .state = DELIVERY_failed, .error = STR("late")};
    fails(w, ERR_CONFLICT, DO(w, delivery_end, &late, &disabled));
    must(w, !end_try(w, again, DELIVERY_waiting, SECOND / 20));
    now = webhook_of(w, &h.id);
    must(w, now.failures == 1 && now.failing_since_us > 0 && now.last_try_us > 0 && now.last_status == 500);
    same_str(w, now.last_error, "status 500");
    same(w, now.version, 1);
    same(w, take(w, SECOND, 10, 10, &none), 0);
    while (take(w, 60 * SECOND, 10, 10, &again) == 0)
        must(w, fiber_sleep(MS) == 0);
    same(w, again->tries, 3);
    end_try(w, again, DELIVERY_delivered, 0);
    now = webhook_of(w, &h.id);
    must(w, now.failures == 0 && now.failing_since_us == 0 && now.last_status == 204 && now.last_error.n == 0);
    d = deliveries(w, &h, 1);
    must(w, d->state == DELIVERY_delivered && d->ended_us > 0 && d->status == 204 && d->tries == 3);
    fails(w, ERR_CONFLICT, DO(w, delivery_end, &late, &disabled));
}

static void no_receiver_takes_all_places(struct world *w)
{
    struct store_webhook busy = a_webhook(w, "[]"), other = a_webhook(w, "[]");
    struct store_delivery *d;
    int of_other = 0;
    for (int i = 0; i < 8; i++)
        test_delivery(w, &busy);
    same(w, take(w, 60 * SECOND, 10, 3, &d), 3);
    same(w, take(w, 60 * SECOND, 10, 3, &d), 0);
    for (int i = 0; i < 8; i++)
        test_delivery(w, &other);
    same(w, take(w, 60 * SECOND, 2, 3, &d), 2);
    for (int i = 0; i < 2; i++)
        of_other += uuid_eq(&d[i].hook.id, &other.id);
    same(w, of_other, 2);
    end_try(w, &d[0], DELIVERY_delivered, 0);
    /* the least busy is served first, though the other has waited for longer */
    same(w, take(w, 60 * SECOND, 1, 4, &d), 1);
    same_id(w, d->hook.id, other.id);
    same(w, take(w, 60 * SECOND, 10, 3, &d), 1);
    same_id(w, d->hook.id, other.id);
}

static void receivers_are_given_up(struct world *w)
{
    int64_t dropped;
    struct store_webhook gone = a_webhook(w, "[]"), failing = a_webhook(w, "[]"), now;
    struct store_webhook_patch on = {.set_enabled = true, .enabled = true};
    struct store_delivery *d;
    struct store_delivery_end in = {.state = DELIVERY_failed, .status = 410, .error = STR("status 410"), .gone = true};
    bool disabled;
    for (int i = 0; i < 4; i++)
        test_delivery(w, &gone);
    same(w, take(w, 60 * SECOND, 10, 1, &d), 1);
    in.no = d->no;
    in.tries = d->tries;
    ok(w, DO(w, delivery_end, &in, &disabled));
    must(w, disabled);
    now = webhook_of(w, &gone.id);
    must(w, !now.enabled && now.version == 2);
    same_str(w, now.disabled_reason, "gone");
    test_delivery(w, &failing);
    same(w, sweep(w, 3600 * SECOND, 100, 2, &dropped), 2);
    same(w, sweep(w, 3600 * SECOND, 100, 2, &dropped), 1);
    NO_STEP(w, 100);
    same(w, dropped, 0);
    d = deliveries(w, &gone, 4);
    for (int i = 0; i < 3; i++) {
        must(w, d[i].state == DELIVERY_failed && d[i].ended_us > 0 && d[i].tries == 0);
        same_str(w, d[i].error, "the webhook was disabled");
    }
    must(w, deliveries(w, &failing, 1)->state == DELIVERY_waiting);
    ok(w, GET(w, webhook_patch, &gone.id, &on, 0, &now));
    must(w, now.enabled && !now.disabled_reason.n && !now.failures && !now.failing_since_us);

    same(w, take(w, 60 * SECOND, 10, 1, &d), 1);
    in = (struct store_delivery_end){.no = d->no, .tries = 1, .error = STR("x"), .patience_us = 3600 * SECOND};
    ok(w, DO(w, delivery_end, &in, &disabled));
    must(w, !disabled);
    behind_its_back(w, "UPDATE webhooks SET failing_since_us = failing_since_us - 3601000000 WHERE failures > 0",
                    "UPDATE webhooks SET failing_since_us = failing_since_us - 3601000000 WHERE failures > 0");
    same(w, take(w, 60 * SECOND, 10, 1, &d), 1);
    in.tries = 2;
    in.patience_us = 0;
    ok(w, DO(w, delivery_end, &in, &disabled));
    must(w, !disabled); /* 0: never */
    same(w, take(w, 60 * SECOND, 10, 1, &d), 1);
    in.tries = 3;
    in.patience_us = 3600 * SECOND;
    ok(w, DO(w, delivery_end, &in, &disabled));
    must(w, disabled);
    now = webhook_of(w, &failing.id);
    same_str(w, now.disabled_reason, "failing");
    same(w, now.failures, 3);
    same(w, sweep(w, 3600 * SECOND, 100, 2, &dropped), 1);
    must(w, deliveries(w, &failing, 1)->state == DELIVERY_failed);
}

static void a_try_that_was_cut_off_says_nothing_of_the_receiver(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[]"), now;
    struct store_delivery *d;
    struct store_delivery_end in = {.tries = 1, .error = STR("cancelled"), .patience_us = -1};
    bool disabled;
    test_delivery(w, &h);
    same(w, take(w, 60 * SECOND, 10, 1, &d), 1);
    in.no = d->no;
    ok(w, DO(w, delivery_end, &in, &disabled));
    must(w, !disabled);
    now = webhook_of(w, &h.id);
    must(w, now.enabled && !now.failures && !now.failing_since_us && !now.last_try_us);
    same(w, take(w, 60 * SECOND, 10, 1, &d), 1); /* and it is made again at once */
    same(w, d->tries, 2);
}

static void old_ones_are_swept(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[]");
    struct store_delivery *d, *page;
    int64_t dropped, counts[DELIVERY_STATE_COUNT];
    size_t n;
    bool more;
    for (int i = 0; i < 5; i++)
        test_delivery(w, &h);
    d = deliveries(w, &h, 5);
    ok(w, GET(w, delivery_list, &h.id, &d[1].id, 2, &page, &n, &more));
    must(w, n == 2 && more && uuid_eq(&page[0].id, &d[2].id) && uuid_eq(&page[1].id, &d[3].id));
    ok(w, GET(w, delivery_list, &h.id, &d[3].id, 2, &page, &n, &more));
    must(w, n == 1 && !more && uuid_eq(&page[0].id, &d[4].id));
    same(w, take(w, 60 * SECOND, 2, 2, &d), 2);
    end_try(w, &d[0], DELIVERY_delivered, 0);
    ok(w, DO(w, delivery_counts, counts));
    must(w, counts[DELIVERY_waiting] == 3 && counts[DELIVERY_sending] == 1 && counts[DELIVERY_delivered] == 1 &&
                counts[DELIVERY_failed] == 0);
    NO_STEP(w, 100);
    behind_its_back(w, "UPDATE webhook_deliveries SET created_us = created_us - 3601000000 WHERE no <= 4",
                    "UPDATE webhook_deliveries SET created_us = created_us - 3601000000 WHERE no <= 4");
    same(w, sweep(w, 3600 * SECOND, 100, 3, &dropped), 3);
    same(w, sweep(w, 3600 * SECOND, 100, 3, &dropped), 1);
    same(w, dropped, 0);
    NO_STEP(w, 100);
    deliveries(w, &h, 1);
}

/* Nobody waits for the end of its deliveries, which may be many. */
static void a_deleted_one_goes_in_steps(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[\"job.*\"]"), other = a_webhook(w, "[]"), now, *list;
    struct store_collection c = a_collection(w, "c");
    struct store_document doc = a_document(w, &c, "text");
    struct store_page page = {.limit = 10};
    struct store_delivery *d;
    struct store_job out;
    int64_t counts[DELIVERY_STATE_COUNT], dropped;
    size_t n;
    bool more;
    for (int i = 0; i < 5; i++)
        test_delivery(w, &h);
    same(w, take(w, 60 * SECOND, 1, 1, &d), 1);
    test_delivery(w, &other);
    ok(w, DO(w, webhook_delete, &h.id, 0));
    fails(w, ERR_NOT_FOUND, GET(w, webhook_get, &h.id, &now));
    fails(w, ERR_NOT_FOUND, GET(w, delivery_list, &h.id, NULL, 1, &d, &n, &more));
    ok(w, GET(w, webhook_list, &page, &list, &n, &more));
    same(w, n, 1);
    same_id(w, list[0].id, other.id);
    ok(w, GET(w, webhook_create, &other, 2, &now)); /* it does not count either */
    ok(w, GET(w, job_cancel, &doc.job, &out));      /* and is told of nothing */
    end_try(w, &(struct store_delivery){.no = d->no, .tries = d->tries}, DELIVERY_waiting, 0);
    same(w, sweep(w, 3600 * SECOND, 100, 3, &dropped), 3);
    ok(w, DO(w, delivery_counts, counts));
    same(w, counts[DELIVERY_waiting], 3);
    same(w, sweep(w, 3600 * SECOND, 100, 3, &dropped), 2);
    same(w, sweep(w, 3600 * SECOND, 100, 3, &dropped), 1); /* itself */
    same(w, dropped, 0);
    NO_STEP(w, 100);
    deliveries(w, &other, 1);
}

/* The newest are kept: they say most of how things are. What is under way goes on. */
static void what_waits_has_a_bound(struct world *w)
{
    struct store_webhook h = a_webhook(w, "[]"), other = a_webhook(w, "[]"), now;
    struct store_delivery *d, *taken, *before;
    int64_t dropped;
    for (int i = 0; i < 8; i++)
        test_delivery(w, &h);
    same(w, take(w, 60 * SECOND, 1, 1, &taken), 1); /* the oldest */
    for (int i = 0; i < 3; i++)
        test_delivery(w, &other);
    NO_STEP(w, 7);
    now = webhook_of(w, &h.id);
    must(w, now.dropped == 0 && now.last_dropped_us == 0);
    before = deliveries(w, &h, 8);
    same(w, sweep(w, 3600 * SECOND, 3, 3, &dropped), 3);
    same(w, dropped, 3);
    d = deliveries(w, &h, 5);
    for (int i = 0; i < 4; i++)
        same_id(w, d[i].id, before[i].id);
    must(w, uuid_eq(&d[4].id, &taken->id) && d[4].state == DELIVERY_sending);
    same(w, sweep(w, 3600 * SECOND, 3, 3, &dropped), 1);
    same(w, dropped, 1);
    NO_STEP(w, 3);
    now = webhook_of(w, &h.id);
    must(w, now.dropped == 4 && now.last_dropped_us > 0 && now.version == 1 && !now.failures && !now.last_try_us);
    must(w, webhook_of(w, &other.id).dropped == 0);
    deliveries(w, &other, 3);
    end_try(w, taken, DELIVERY_waiting, 0); /* it waits again, and is the oldest */
    same(w, sweep(w, 3600 * SECOND, 3, 3, &dropped), 1);
    d = deliveries(w, &h, 3);
    for (int i = 0; i < 3; i++)
        same_id(w, d[i].id, before[i].id);
}

int main(int argc, char **argv)
{
    struct contract_test tests[] = {
        TEST(settings_are_kept),         TEST(a_ready_document_is_told),
        TEST(a_failed_document_is_told), TEST(what_is_put_back_is_not_told),
        TEST(other_jobs_are_told),       TEST(a_disabled_one_is_told_nothing),
        TEST(a_try_is_leased),           TEST(no_receiver_takes_all_places),
        TEST(receivers_are_given_up),    TEST(a_try_that_was_cut_off_says_nothing_of_the_receiver),
        TEST(old_ones_are_swept),        TEST(a_deleted_one_goes_in_steps),
        TEST(what_waits_has_a_bound),
    };
    return contract_main("webhooks", tests, sizeof tests / sizeof *tests, argc, argv);
}
