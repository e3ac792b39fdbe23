#include "worker/kinds.h"
#include "worker/core/eval_job.h"
#include "worker/core/ingest.h"
#include "worker/core/reprocess.h"
#include "worker/core/upkeep.h"

const struct job_kind job_kinds[] = {
    {"ingest", ingest_run},
    {"delete_collection", ingest_delete_collection_run},
    {"delete_documents", ingest_delete_documents_run},
    {"reprocess", reprocess_run},
    {"reindex", upkeep_reindex_run},
    {"fsck", upkeep_fsck_run},
    {"eval", eval_job_run},
};
const size_t n_job_kinds = sizeof job_kinds / sizeof *job_kinds;
