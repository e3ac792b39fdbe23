#include "worker/cli/commands.h"
#include "worker/cache/cache.h"
#include "worker/core/cage.h"
#include "worker/io/httpc.h"
#include "worker/core/watch.h"
#include "worker/store/store.h"
#include "worker/vector/vector.h"

const struct cli_command cli_commands[] = {
    {"migrate", "[--wait SECONDS] [--json]", "Bring the database to the schema of this release",
     "  --wait SECONDS   keep trying while the database cannot be reached (default 0)\n"
     "  --json           print {\"applied\": N}\n"
     "PostgreSQL needs this once per release, unless database.auto_migrate is on; SQLite migrates itself.\n"
     "Exit codes: 0 done, 1 the database refused or cannot be reached, 78 bad configuration.\n",
     cli_migrate},
    {"seed", "[--json]", "Fill the collection `sample` with a small corpus to try things on",
     "  --json           print what was made as JSON\n"
     "Running it again changes nothing. The documents are searchable when it returns:\n"
     "  ragd seed && ragd search --collection sample anemometer\n"
     "Exit codes: 0 all documents are ready, 1 not, 78 bad configuration.\n",
     cli_seed},
    {"ingest", "[--collection NAME] [--jobs N] [--no-wait] [--json] PATH...",
     "Put files and folders into a collection and wait until they are searchable",
     "  --collection NAME   the collection, made when there is none (default: default)\n"
     "  --jobs N            processes that work on the files, 1 to 64 (default: one per CPU)\n"
     "  --no-wait           hand the files over and leave the work to a running server\n"
     "  --json              print the outcome as JSON\n"
     "Folders are taken with everything below them. The absolute path is the document's external_id (of a path\n"
     "longer than 256 bytes: path:sha256: and its hash), so a second run skips what has not changed, takes up what "
     "was\n"
     "interrupted, and replaces files whose bytes differ. Every file ends as ready, skipped (unchanged) or refused "
     "with\n"
     "a reason; Ctrl-C loses nothing that was handed over.\n"
     "Works with and without a running server.\n"
     "Exit codes: 0 done, 1 a PATH itself was refused or the database failed, 2 wrong usage, 78 bad configuration.\n",
     cli_ingest},
    {"search", "[--collection NAME]... [--top-k N] [--mode MODE] [--json] QUERY...",
     "Search and print the best passages",
     "  --collection NAME   search only this one; may be repeated (default: all)\n"
     "  --top-k N           at most this many passages (default: 5)\n"
     "  --mode MODE         hybrid (by words and vectors), lexical or vector (default: hybrid)\n"
     "  --json              print the hits as JSON\n"
     "Exit codes: 0 something was found, 1 nothing was found or the search failed, 2 wrong usage, 78 bad "
     "configuration.\n",
     cli_search},
    {"ask", "[--collection NAME]... [--top-k N] [--mode MODE] [--extractive] [--json] QUESTION...",
     "Answer a question from the documents, with the places it rests on",
     "  --collection NAME   look only into this one; may be repeated (default: all)\n"
     "  --top-k N           passages to look at (default: 10)\n"
     "  --mode MODE         how they are found: hybrid, lexical or vector (default: hybrid)\n"
     "  --extractive        sentences of the documents only, also where llm.url names a model\n"
     "  --json              print answer and citations as JSON\n"
     "Exit codes: 0 answered from the documents, 1 they do not answer it or the search failed, 2 wrong usage,\n"
     "78 bad configuration.\n",
     cli_ask},
    {"eval", "[--collection NAME]... [--mode MODE] [--k N] [--save FILE] [--base FILE] [GATE]... [--json] GOLDEN",
     "Measure how good retrieval is, against questions whose answers are known",
     "  --collection NAME   search only this one; may be repeated (default: all)\n"
     "  --mode MODE         hybrid, lexical or vector (default: hybrid)\n"
     "  --k N               results that count for recall (default: 10)\n"
     "  --save FILE         keep the run, to compare later ones with it\n"
     "  --base FILE         compare with a run that was kept, question by question\n"
     "  --json              print the run as JSON\n"
     "Gates, from 0 to 1: --min-ndcg X, --min-recall X, and with --base --max-drop X: nDCG@10 may be that much lower.\n"
     "GOLDEN is a file, or - for standard input, or a golden set that the server keeps, by its name. It has one JSON\n"
     "object a line; `relevant` names documents by external id, or gives objects with external_id, document_id or\n"
     "chunk_id, and a grade (default 1); `id` may be left out:\n"
     "  {\"id\": \"q1\", \"query\": \"how to descale a kettle\", \"relevant\": [\"kettles.md\", {\"external_id\": "
     "\"acids.md\", \"grade\": 0.5}]}\n"
     "Exit codes: 0 all gates are passed, 1 not, or the search failed, 2 wrong usage, 78 bad configuration.\n",
     cli_eval},
    {"cache", "flush|check [--json]", "Empty the cache, or ask whether it answers",
     "  flush            remove every key that begins with cache.prefix; what is flushed is made anew when it is "
     "needed.\n"
     "                   With cache.url memory: only POST /api/v1/admin/cache/flush reaches what the workers keep\n"
     "  check            connect, authenticate, ask\n"
     "  --json           print the outcome as JSON\n"
     "Changed documents need no flush: the keys carry the revision of what they were made of.\n"
     "Exit codes: 0 done, 1 the cache cannot be reached or there is none, 2 wrong usage, 78 bad configuration.\n",
     cli_cache},
    {"reindex",
     "[--gate GOLDEN [--min-delta X] | --no-promote | --promote | --rollback | --drop] [--json] [COLLECTION...]",
     "Build the vector index of collections anew, with the configured embedder",
     "  --no-promote     build the new generation, but go on searching the old one\n"
     "  --gate GOLDEN    search the new generation only if it answers these questions well enough: a file as `ragd "
     "eval`\n"
     "                   takes, or a golden set of the server. Else the command fails with the figures of both, and "
     "the "
     "new\n"
     "                   generation is kept, to be promoted or dropped\n"
     "  --min-delta X    of nDCG@10, new less old, from -1 to 1; default 0: no worse. An old generation of another "
     "model\n"
     "                   is measured by words alone, as it is searched now\n"
     "  --promote        only: search a generation that was built with --no-promote,\n"
     "                   or, of a collection that is named, the one that --rollback left\n"
     "  --rollback       only: search the previous generation again\n"
     "  --drop           only: forget the generations that are not searched\n"
     "  --json           print what became of each collection as JSON\n"
     "Without names, all collections. Searches go on meanwhile; the new generation takes the place of the old one in "
     "one\n"
     "step when it is complete, and the old one is kept until the next. Text that was embedded with this model before "
     "is\n"
     "not embedded again. What is interrupted goes on where it was. Works with and without a running server.\n"
     "Exit codes: 0 done, 1 not, 2 wrong usage, 78 bad configuration.\n",
     cli_reindex},
    {"fsck", "[--repair] [--json]", "Compare the vector index with the database",
     "  --repair         mend what differs: vectors come from the database, or from the embedder\n"
     "  --json           print the counts as JSON\n"
     "Counted are documents that are missing, too many or of another version and, on Qdrant, aliases that lead "
     "elsewhere,\n"
     "and strays: what is kept in vectors.path, or in Qdrant under vectors.prefix, of collections that are gone.\n"
     "Works with and without a running server.\n"
     "Exit codes: 0 no difference is left, 1 there are some or the work failed, 2 wrong usage, 78 bad configuration.\n",
     cli_fsck},
    {"export", "[--collection NAME]... [--output FILE]",
     "Write collections as lines of JSON, with files, chunks and vectors",
     "  --collection NAME   only this one; may be repeated (default: all)\n"
     "  --output FILE       instead of standard output\n"
     "What `ragd import` reads, into any database and any vector index: documents and chunks keep their ids, and "
     "nothing\n"
     "is parsed or embedded again. Earlier versions of documents are not part of it. Each document is as it is when "
     "its\n"
     "turn comes: until its lines are known to be of one version, they are kept in a temporary file (in $TMPDIR).\n"
     "A collection that is deleted while it is exported ends the export: what was written lacks the end, and `ragd "
     "import`\n"
     "says so.\n"
     "Exit codes: 0 done, 1 not, 2 wrong usage, 78 bad configuration.\n",
     cli_export},
    {"import", "[--json] [FILE]", "Read what `ragd export` wrote",
     "  --json              print the counts as JSON\n"
     "FILE is standard input when it is - or left out. Collections are found by name, or made. Documents that are "
     "there\n"
     "already are passed over, so an import that was interrupted can be repeated.\n"
     "Exit codes: 0 done, 1 not, 2 wrong usage, 78 bad configuration.\n",
     cli_import},
    {"health", "[--ready] [--timeout SECONDS]", "Ask the server on this machine whether it is alive",
     "  --ready             ask /readyz instead of /livez: can it serve now?\n"
     "  --timeout SECONDS   how long to wait for the answer, 1 to 600 (default: 5)\n"
     "Asks at the addresses of server.bind, so it needs the configuration that the server has.\n"
     "Exit codes: 0 yes, 1 no, 78 bad configuration.\n",
     cli_health},
    {NULL, NULL, NULL, NULL, NULL},
};

int cli_cage_broker(const char *fd)
{
    return cage_broker_main(fd);
}

int cli_check(const struct config *cfg, struct err *e)
{
    return store_check(cfg, e) || vectors_check(cfg, e) || cache_check(cfg, e) || httpc_check(cfg, e) ||
                   watch_check(cfg, e)
               ? -1
               : 0;
}
