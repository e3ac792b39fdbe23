/* The command line. The only file that sees both sides: it hands the worker to the master, and runs the commands that
 * work on data. */
#include "common/log.h"
#include "common/title.h"
#include "config/config.h"
#include "master/child.h"
#include "master/ctl.h"
#include "master/check.h"
#include "master/master.h"
#include "version.h"
#include "worker/cli/cli.h"
#include "worker/worker.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What stands on the command line, options of the program taken out. */
struct line {
    struct master_args args;
    const char **set;
    char **rest; /* rest[0] is the command */
    int n_rest;
    bool help;
};

struct command {
    const char *name, *args, *summary, *help;
    int (*run)(struct line *line);
};

static int run_serve(struct line *line);
static int run_check(struct line *line);
static int run_dump(struct line *line);
static int run_version(struct line *line);
static int run_help(struct line *line);

static const struct command commands[] = {
    {"serve", "[--role http|ingest|all]", "Run the server in the foreground",
     "  --role ROLE   all (default), http: no ingest workers, ingest: nothing but them\n"
     "Signals: TERM stops gracefully, INT and QUIT at once, HUP reloads, USR1 opens\n"
     "the logs anew, USR2 upgrades the binary, TTIN and TTOU add and remove a worker.\n"
     "Exit codes: 0 stopped as asked, 1 internal, 2 wrong usage, 3 no worker could boot, 5 cannot bind, 6 already\n"
     "running, 7 the new process of an upgrade could not take over, 78 bad configuration.\n",
     run_serve},
    {"check", "", "Validate the configuration, and try what a start would do",
     "Tries the addresses, looks up the user, and looks at the database's URL, the log, the hooks and the limits,\n"
     "without leaving anything behind. Addresses that the running server holds are free.\n"
     "Exit codes: 0 good, 78 bad configuration, 5 an address cannot be bound; one line for each problem.\n",
     run_check},
    {"dump", "[--json | --example | --reference]", "Print the configuration in effect, secrets redacted",
     "  --json        as JSON\n"
     "  --example     an annotated file with all keys at their defaults\n"
     "  --reference   a table of all keys, as Markdown\n",
     run_dump},
    {"version", "[--json]", "Print the version", "  --json        as JSON\n", run_version},
    {"help", "", "Print this list", "", run_help},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static const char common_help[] = "Options of all commands:\n"
                                  "  -c, --config FILE         read this configuration file\n"
                                  "      --set SECTION.KEY=V   override one key; may be repeated\n"
                                  "  -h, --help                print help and exit\n"
                                  "Environment: RAGD_<SECTION>_<KEY> for every key; `.env` in the working directory "
                                  "is read, too.\n";

extern char **environ;

static int parse(struct line *line, int argc, char **argv);
static int dispatch(struct line *line);

int main(int argc, char **argv)
{
    struct line line = {.args = {.http = true, .ingest = true}};
    signal(SIGCHLD, SIG_DFL); /* ignored by whoever started us, it would be still: then no death could be waited for */
    argv = title_init(argc, argv);
    if (argc == 3 && strcmp(argv[1], "cage-broker") == 0) /* by itself, with nothing in hand */
        return cli_cage_broker(argv[2]);
    child_main = worker_main;
    scoreboard_routes = worker_routes();
    line.set = calloc((size_t)argc + 1, sizeof *line.set);
    line.rest = calloc((size_t)argc + 1, sizeof *line.rest);
    if (!line.set || !line.rest)
        abort();
    line.args.argv = argv;
    line.args.config.environ = environ;
    line.args.config.dotenv = access(".", X_OK) == 0 ? ".env" : NULL; /* it may be made, or removed, before a reload */
    int code = parse(&line, argc, argv);
    if (code == 0)
        code = dispatch(&line);
    free(line.set);
    free(line.rest);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == 0) {
        fprintf(stderr, "ragd: cannot write the output: %s\n", strerror(errno));
        code = EXIT_INTERNAL;
    }
    return code;
}

static int usage(const char *fmt, const char *what)
{
    fputs("ragd: ", stderr);
    fprintf(stderr, fmt, what); /* literals of this file only */
    fputs("; see `ragd help`\n", stderr);
    return EXIT_USAGE;
}

/* Value of an option: "--name=VALUE" or the next argument. NULL: this is not the option. */
static const char *option(const char *name, int argc, char **argv, int *i, int *error)
{
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) == 0 && argv[*i][n] == '=' && n > 2)
        return argv[*i] + n + 1;
    if (strcmp(argv[*i], name) != 0)
        return NULL;
    if (*i + 1 >= argc) {
        *error = usage("%s needs a value", name);
        return NULL;
    }
    return argv[++*i];
}

/* The options of the program may stand anywhere before "--"; everything else is the command's. */
static int parse(struct line *line, int argc, char **argv)
{
    struct config_args *c = &line->args.config;
    int error = 0;
    bool only_rest = false;
    for (int i = 1; i < argc && !error; i++) {
        const char *v;
        if (only_rest) {
            line->rest[line->n_rest++] = argv[i];
        } else if ((v = option("-c", argc, argv, &i, &error)) || (v = option("--config", argc, argv, &i, &error))) {
            c->file = v;
        } else if (!error && (v = option("--set", argc, argv, &i, &error))) {
            line->set[c->n_set++] = v;
        } else if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            line->help = true;
        } else if (!error) {
            only_rest = strcmp(argv[i], "--") == 0 && line->n_rest > 0;
            line->rest[line->n_rest++] = argv[i];
        }
    }
    c->set = line->set;
    return error;
}

/* -- finding the command */

static void nearer(const char *name, const char *candidate, const char **best, int *best_distance)
{
    int d = str_distance(name, candidate);
    if (d < *best_distance) {
        *best = candidate;
        *best_distance = d;
    }
}

static const char *nearest(const char *name)
{
    const char *best = NULL;
    int best_distance = 3;
    for (int i = 0; i < COMMANDS; i++)
        nearer(name, commands[i].name, &best, &best_distance);
    for (const struct ctl_command *c = ctl_commands; c->name; c++)
        nearer(name, c->name, &best, &best_distance);
    for (const struct cli_command *c = cli_commands; c->name; c++)
        nearer(name, c->name, &best, &best_distance);
    return best;
}

static void print_usage(const char *name, const char *args, const char *summary, const char *help)
{
    printf("usage: ragd %s [-c FILE] [--set K=V]%s%s\n%s.\n%s%s\n%s", name, *args ? " " : "", args, summary,
           help && *help ? "\n" : "", help ? help : "", common_help);
}

static int load(struct line *line, struct config **cfg)
{
    struct err e = {.code = ERR_NONE};
    if (config_load(&line->args.config, cfg, &e) == 0)
        return 0;
    fprintf(stderr, "ragd: %s\n", e.msg);
    if (e.log[0])
        fprintf(stderr, "ragd: %s\n", e.log);
    return EXIT_CONFIG;
}

static int run_cli(const struct cli_command *c, struct line *line)
{
    struct config *cfg;
    if (line->help) {
        print_usage(c->name, c->args ? c->args : "", c->summary, c->help);
        return 0;
    }
    int code = load(line, &cfg);
    if (code != 0)
        return code;
    log_init((enum log_level)cfg->log_level, cfg->log_format == 1, c->name);
    code = c->run(line->n_rest, line->rest, cfg);
    config_free(cfg);
    return code;
}

/* A running server is also found, and told what to do, while its configuration file is broken. */
static int run_ctl(const struct ctl_command *c, struct line *line)
{
    struct config *cfg;
    struct err e = {.code = ERR_NONE};
    if (line->help) {
        print_usage(c->name, c->args, c->summary, c->help);
        return 0;
    }
    if (config_load_partly(&line->args.config, &cfg, &e) != 0)
        fprintf(stderr, "ragd: warning: %s; looking for the server with the settings that can be read\n", e.msg);
    int code = c->run(line->n_rest, line->rest, cfg);
    config_free(cfg);
    return code;
}

/* --serve, --check and so on: the habit of programs that have one command each. */
static const char *without_dashes(const char *name)
{
    return strncmp(name, "--", 2) == 0 && name[2] ? name + 2 : name;
}

static int dispatch(struct line *line)
{
    char message[160];
    if (line->n_rest == 0) {
        run_help(line);
        return line->help ? 0 : EXIT_USAGE;
    }
    const char *name = without_dashes(line->rest[0]);
    for (int i = 0; i < COMMANDS; i++) {
        const struct command *c = &commands[i];
        if (strcmp(name, c->name) != 0)
            continue;
        if (!line->help)
            return c->run(line);
        print_usage(c->name, c->args, c->summary, c->help);
        return 0;
    }
    for (const struct ctl_command *c = ctl_commands; c->name; c++)
        if (strcmp(name, c->name) == 0)
            return run_ctl(c, line);
    for (const struct cli_command *c = cli_commands; c->name; c++)
        if (strcmp(name, c->name) == 0)
            return run_cli(c, line);
    const char *near = nearest(name);
    if (near)
        snprintf(message, sizeof message, "there is no command '%.60s', did you mean '%s'?", line->rest[0], near);
    else
        snprintf(message, sizeof message, "there is no command '%.60s'", line->rest[0]);
    return usage("%s", message);
}

/* True when argument `i` of the command is this switch. */
static bool is(const struct line *line, int i, const char *name)
{
    return strcmp(line->rest[i], name) == 0;
}

static int unexpected(const struct line *line, int i)
{
    char message[160];
    snprintf(message, sizeof message, "`ragd %s` does not know '%.60s'", without_dashes(line->rest[0]), line->rest[i]);
    return usage("%s", message);
}

/* The commands whose one switch is a yes or no. -1: something else stands there, and was reported. */
static int one_switch(const struct line *line, const char *name)
{
    int on = 0;
    for (int i = 1; i < line->n_rest; i++) {
        if (!name || !is(line, i, name)) {
            unexpected(line, i);
            return -1;
        }
        on = 1;
    }
    return on;
}

/* -- the commands */

/* 0, 1, 2 are the terminal's or the log's: were one closed, a socket would get its number. */
static int open_standard(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO && fcntl(fd, F_SETFD, 0) == 0);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int run_serve(struct line *line)
{
    for (int i = 1; i < line->n_rest; i++) {
        int error = 0;
        const char *role = option("--role", line->n_rest, line->rest, &i, &error);
        if (error)
            return error;
        if (!role)
            return unexpected(line, i);
        line->args.http = strcmp(role, "ingest") != 0;
        line->args.ingest = strcmp(role, "http") != 0;
        if (line->args.http && line->args.ingest && strcmp(role, "all") != 0)
            return usage("--role is http, ingest or all, not '%s'", role);
    }
    if (open_standard() != 0)
        return EXIT_INTERNAL;
    return master_run(&line->args);
}

static void tell(const char *problem)
{
    fprintf(stderr, "ragd: %s\n", problem);
}

static int run_check(struct line *line)
{
    struct config *cfg;
    struct err e = {.code = ERR_NONE};
    struct buf b = {0};
    char sha256[CONFIG_SHA256_LEN + 1];
    if (one_switch(line, NULL) < 0)
        return EXIT_USAGE;
    int code = load(line, &cfg);
    if (code != 0)
        return code;
    code = check_start(cfg, tell);
    if (cli_check(cfg, &e) != 0) {
        config_locate(cfg, &e);
        tell(e.msg);
        code = EXIT_CONFIG;
    }
    if (code == 0) {
        check_warnings(cfg, &b);
        fprintf(stderr, STR_FMT, STR_ARG(buf_view(&b)));
        config_sha256(cfg, sha256);
        printf("the configuration is good\nsha256 %s\n", sha256);
    }
    buf_fini(&b);
    config_free(cfg);
    return code;
}

static int run_dump(struct line *line)
{
    struct config *cfg;
    struct buf b = {0};
    const char *form = "";
    for (int i = 1; i < line->n_rest; i++) {
        if (!is(line, i, "--json") && !is(line, i, "--example") && !is(line, i, "--reference"))
            return unexpected(line, i);
        form = line->rest[i];
    }
    if (strcmp(form, "--example") == 0) {
        config_example(&b);
    } else if (strcmp(form, "--reference") == 0) {
        config_reference(&b);
    } else {
        int code = load(line, &cfg);
        if (code != 0)
            return code;
        if (*form)
            config_dump_json(cfg, &b);
        else
            config_dump(cfg, &b);
        config_free(cfg);
    }
    fwrite(b.p, 1, b.n, stdout);
    buf_fini(&b);
    return 0;
}

static int run_version(struct line *line)
{
    int json = one_switch(line, "--json");
    if (json < 0)
        return EXIT_USAGE;
    cli_version(json);
    return 0;
}

static int run_help(struct line *line)
{
    (void)line;
    printf("usage: ragd COMMAND [OPTIONS]\nragd %s, a document server for retrieval-augmented generation.\n\n",
           RAGD_VERSION);
    for (int i = 0; i < COMMANDS; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    for (const struct ctl_command *c = ctl_commands; c->name; c++)
        printf("  %-10s %s\n", c->name, c->summary);
    for (const struct cli_command *c = cli_commands; c->name; c++)
        printf("  %-10s %s\n", c->name, c->summary);
    printf("\n%s\n`ragd COMMAND --help` says more.\n", common_help);
    return 0;
}
