#include "worker/core/cage_cell.h"
#include "worker/core/cage_jail.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* PDF is read by a foreign program, in a jail that lets it open what a program needs to begin, and nothing else. Its input
 * is the document's descriptor, its output two pipes. The cage itself, which only reads these, is closed as always. */

static _Noreturn void be_program(int document, const int text[2], const int errors[2], const struct cage_limits *l,
                                 struct cell_walls *walls)
{
    char *argv[] = {(char[]){"pdftotext"}, (char[]){"-htmlmeta"}, (char[]){"-enc"},
                    (char[]){"UTF-8"},     (char[]){"-eol"},      (char[]){"unix"},
                    (char[]){"-"},         (char[]){"-"},         NULL};
    char *none[] = {NULL};
    if (lseek(document, 0, SEEK_SET) != 0 || dup2(document, STDIN_FILENO) < 0 || dup2(text[1], STDOUT_FILENO) < 0 ||
        dup2(errors[1], STDERR_FILENO) < 0 || close_range(STDERR_FILENO + 1, ~0U, 0) != 0 ||
        jail_enter(JAIL_PROGRAM, l) != 0)
        cell_without_walls(walls);
    signal(SIGABRT, SIG_DFL);
    execve(JAIL_PDFTOTEXT, argv, none);
    if (errno == ENOMEM || errno == EAGAIN)
        _exit(CELL_MEMORY);
    cell_without_walls(walls);
}

int program_start(struct program *p, int document, const struct cage_limits *l, struct cell_walls *walls)
{
    int text[2], errors[2];
    if (access(JAIL_PDFTOTEXT, X_OK) != 0) /* said in the words of the reader that finds no PDF reader */
        return 0;
    if (pipe2(text, O_CLOEXEC) != 0 || pipe2(errors, O_CLOEXEC) != 0)
        return -1;
    p->pid = _Fork();
    if (p->pid == 0)
        be_program(document, text, errors, l, walls);
    close(text[1]);
    close(errors[1]);
    p->text = text[0];
    p->errors = errors[0];
    return p->pid < 0 ? -1 : 0;
}

/* 0 at the end of the pipe. */
static ssize_t read_some(int fd, struct buf *out)
{
    enum { STEP = 64 << 10 };
    buf_reserve(out, STEP);
    ssize_t n;
    do
        n = read(fd, out->p + out->n, STEP);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        out->n += (size_t)n;
    return n;
}

/* Both pipes to their ends; pages are counted as they come, so that whoever asks afterwards knows where it was, but for the
 * few KB that pdftotext keeps back. */
static void read_pipes(const struct program *p, struct source *s, int64_t most, struct buf *text, struct buf *errors)
{
    enum { ERRORS_MAX = 64 << 10 };
    int pages = 0;
    struct pollfd fd[] = {{p->text, POLLIN, 0}, {p->errors, POLLIN, 0}};
    while (fd[0].fd >= 0 || fd[1].fd >= 0) {
        if (poll(fd, 2, -1) < 0 && errno != EINTR)
            return;
        size_t before = text->n;
        if (fd[0].revents && read_some(fd[0].fd, text) <= 0)
            fd[0].fd = -1;
        for (size_t i = before; i < text->n; i++)
            pages += text->p[i] == '\f';
        s->builder.page = pages ? pages + 1 : 0;
        if ((int64_t)text->n > most)
            return;
        if (fd[1].revents && read_some(fd[1].fd, errors) <= 0)
            fd[1].fd = -1;
        if (errors->n > ERRORS_MAX) /* it complains about each object of a broken document */
            errors->n = ERRORS_MAX / 2;
    }
}

static bool says(const struct buf *errors, const char *word)
{
    return errors->n && memmem(errors->p, errors->n, word, strlen(word));
}

static bool for_want_of_memory(const struct buf *errors)
{
    return says(errors, "ut of memory") || says(errors, "bad_alloc") || says(errors, "cannot allocate");
}

/* How it ended, when not well. */
static void refuse_pdf(struct source *s, struct cell_shared *shared, int status, const struct buf *errors)
{
    if (for_want_of_memory(errors) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
        (WIFEXITED(status) && (WEXITSTATUS(status) == CELL_MEMORY || WEXITSTATUS(status) == 127)))
        _exit(CELL_MEMORY);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
        _exit(CELL_TIME);
    if (WIFSIGNALED(status)) {
        shared->signal = WTERMSIG(status);
        _exit(CELL_PROGRAM);
    }
    s->builder.page = 0;
    if (says(errors, "ncorrect password") || says(errors, "nencrypted") || says(errors, "ecurity handler") ||
        says(errors, "ncryption") || WEXITSTATUS(status) == 3)
        refuse(s, "encrypted", "the PDF document is protected by a password, or against copies; send it without");
    else
        refuse(s, "invalid_file", "the PDF document is damaged or cut off");
}

void program_read(const struct program *p, struct cell_shared *shared, const struct cage_limits *l)
{
    struct source *s = &shared->source;
    struct buf text = {0}, errors = {0};
    int status;
    s->type = type_of_format(FORMAT_PDF);
    read_pipes(p, s, l->output, &text, &errors);
    if ((int64_t)text.n > l->output) {
        refuse(s, "too_large", "the text of the document is larger than %lld MB", (long long)(l->output >> 20));
        return;
    }
    while (waitpid(p->pid, &status, 0) < 0)
        if (errno != EINTR)
            _exit(1);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        refuse_pdf(s, shared, status, &errors);
    else if (extract_pdf_text(s, buf_view(&text)) == 0 && !str_is_utf8(buf_view(&s->builder.text)))
        refuse(s, "encoding", "the document's text is damaged");
}
