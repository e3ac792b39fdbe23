#include "common/procfile.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct str procfile_read(const char *path, char *text, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    ssize_t r = 1;
    if (fd < 0)
        return STR("");
    while (n < cap && r != 0) {
        r = read(fd, text + n, cap - n);
        if (r < 0 && errno != EINTR)
            break;
        n += r > 0 ? (size_t)r : 0;
    }
    close(fd);
    while (n && text[n - 1] == '\n')
        n--;
    return (struct str){text, n};
}
