/* The table of job kinds: which function runs a job of which type. It stands here because jobs/ leases and renews without
 * knowing what a job does, and core/ does it without knowing who calls. */
#pragma once
#include "worker/jobs/jobs.h"

extern const struct job_kind job_kinds[];
extern const size_t n_job_kinds;
