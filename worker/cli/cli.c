#include "worker/cli/commands.h"

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
     "Folders are taken with everything below them. The absolute path is the document's external_id, so a second run\n"
     "skips what has not changed, takes up what was interrupted, and replaces files whose bytes differ. Every file "
     "ends\n"
     "as ready, skipped (unchanged) or refused with a reason; Ctrl-C loses nothing that was handed over.\n"
     "Works with and without a running server.\n"
     "Exit codes: 0 done, 1 a PATH itself was refused or the database failed, 2 wrong usage, 78 bad configuration.\n",
     cli_ingest},
    {"search", "[--collection NAME]... [--top-k N] [--json] QUERY...", "Search and print the best passages",
     "  --collection NAME   search only this one; may be repeated (default: all)\n"
     "  --top-k N           at most this many passages (default: 5)\n"
     "  --json              print the hits as JSON\n"
     "Exit codes: 0 something was found, 1 nothing was found or the search failed, 2 wrong usage, 78 bad "
     "configuration.\n",
     cli_search},
    {"health", "[--ready] [--timeout SECONDS]", "Ask the server on this machine whether it is alive",
     "  --ready             ask /readyz instead of /livez: can it serve now?\n"
     "  --timeout SECONDS   how long to wait for the answer, 1 to 600 (default: 5)\n"
     "Asks at the addresses of server.bind, so it needs the configuration that the server has.\n"
     "Exit codes: 0 yes, 1 no, 78 bad configuration.\n",
     cli_health},
    {NULL, NULL, NULL, NULL, NULL},
};
