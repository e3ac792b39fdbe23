/* The access log: one line per request, in combined log format followed by the request id and the microseconds that it
 * took, or as JSON. Whatever comes from outside is escaped, so that no request can forge a line. */
#pragma once
#include "worker/http/http.h"

/* After its reply was sent or queued, at `now_ns` (clock_ns()). Nothing when the log is off. */
void access_log(const struct request *r, int64_t now_ns);
