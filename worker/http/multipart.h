/* The reader of multipart/form-data apart from where its bytes come from. */
#pragma once
#include "worker/http/http.h"

/* `boundary` as in the Content-Type, checked by the caller to be 1 to 70 bytes. `read` as body_read(). */
struct multipart *multipart_new(struct arena *a, struct str boundary,
                                ssize_t (*read)(void *arg, void *buf, size_t cap, struct err *e), void *arg);
/* The value of a parameter of a field like `form-data; name="x"`, unquoted, in the arena; p = NULL: absent. */
struct str multipart_param(struct arena *a, struct str field, struct str name);
