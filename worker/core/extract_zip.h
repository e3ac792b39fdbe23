/* The ZIP container that Office, OpenDocument and EPUB files are, read from memory. What it may unfold to is bounded in
 * total, by entry and by ratio: a bomb is refused before it is unpacked. */
#pragma once
#include "common/buf.h"

struct source;
struct zip;

/* NULL after refuse(): damaged, encrypted, or with too many entries. */
struct zip *zip_open(struct source *s);
void zip_close(struct zip *z); /* NULL accepted */
bool zip_has(struct zip *z, struct str name);
/* 0; 1: there is no such entry; -1 after refuse(). `out` is emptied first. */
int zip_read(struct zip *z, struct str name, struct buf *out);

/* The entry that `ref`, as it stands in the entry `base`, means: relative ("../media/a.xml") or absolute ("/ppt/a.xml"),
 * without fragment, percent-decoded. False: it leads out of the container, or is too long. */
enum { ZIP_NAME_MAX = 512 };
bool zip_resolve(struct str base, struct str ref, char out[static ZIP_NAME_MAX]);
