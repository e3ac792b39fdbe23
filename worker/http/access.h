/* The access log: one line per request, in combined log format followed by the request id and the microseconds that it
 * took, or as JSON. Whatever comes from outside is escaped, so that no request can forge a line. */
#pragma once
#include "worker/http/http.h"

void access_log(const struct request *r); /* after its reply was sent or queued; nothing when the log is off */
