/* Webhooks: other servers that are told when documents and jobs have ended, by POST, in the form of Standard Webhooks
 * (standardwebhooks.com, version 1): the headers webhook-id, webhook-timestamp and webhook-signature.
 *
 * What is to be delivered is written by the transaction that ends a job; ingest workers send it, at least once: a try whose
 * worker dies is made again when its lease has run out, with the same id. A receiver has no more than a quarter of
 * webhooks.concurrency at once, so that a slow one keeps nobody waiting. Only public addresses are asked, and those of
 * outgoing.allow_networks, at each try; redirects are not followed. */
#pragma once
#include "worker/core/backends.h"

/* The events that a webhook may ask for, and the families of them. */
extern const char *const webhook_events[];
extern const size_t n_webhook_events;

#define WEBHOOK_TEST "webhook.test" /* the type of what was sent for a test; nobody asks for it */

/* Whether deliveries may go there now. ERR_BLOCKED_URL: never, and why; ERR_NOT_READY: its name does not resolve. */
suspends must_use int webhook_check_url(const struct backends *b, struct arena *a, struct str url, struct err *e);

/* A secret is "whsec_" and base64 of 24 to 64 bytes. */
bool webhook_secret_valid(struct str secret);
struct str webhook_secret_new(struct arena *a); /* of 32 random bytes */

/* The body of a delivery: the same at each try. */
struct str webhook_body(struct arena *a, const struct store_delivery *d);
/* "v1,…": base64 of the HMAC-SHA256 of id.seconds.body. `secret` must be valid. */
struct str webhook_signature(struct arena *a, struct str secret, const struct uuid *id, int64_t seconds,
                             struct str body);

/* The sender of a process, for its ingest role. */
struct webhook_sender;
struct webhook_sender *webhook_sender_start(const struct backends *b); /* NULL: no fiber */
void webhook_sender_drain(struct webhook_sender *s);                   /* takes no more; what is under way goes on */
void webhook_sender_cancel(struct webhook_sender *s);                  /* what is under way is due again at once */
bool webhook_sender_idle(const struct webhook_sender *s);              /* drained, and nothing is under way */
void webhook_sender_free(struct webhook_sender *s);                    /* NULL accepted */
