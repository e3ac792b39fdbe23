/* The title of the process, as `ps` shows it: who it is and what it is doing. It is written over the memory in which the
 * kernel has put arguments and environment, after both were copied. */
#pragma once

/* To be called first of all in main(): who keeps a pointer into `argv` or `environ` from before, keeps rubbish. Returns a
 * copy of argv that lasts as long as the process; `environ` is replaced as well. */
char **title_init(int argc, char **argv);
/* Cheap when nothing has changed. Does nothing without title_init(). Cut where the memory ends. */
void title_set(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
