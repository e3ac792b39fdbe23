/* What the three Office formats share: parts of a package, and the relations between them. */
#pragma once
#include "worker/core/extract_private.h"
#include "worker/core/extract_xml.h"
#include "worker/core/extract_zip.h"

/* The relations of the part `name`, from its _rels/….rels. */
struct relation {
    char id[64];
    char type[32]; /* the last word of its URI: "slide", "styles" */
    char target[ZIP_NAME_MAX];
};
struct relations {
    struct relation *v;
    size_t n, cap;
};
/* No relations is no error. -1 after refuse(). */
int relations_read(struct source *s, struct zip *z, struct str name, struct relations *out);
void relations_fini(struct relations *r);
const char *relation_by_id(const struct relations *r, const char *id);     /* target; NULL: none */
const char *relation_by_type(const struct relations *r, const char *type); /* the first one's */

/* The part that the package is about ("word/document.xml"). -1 after refuse(). */
int office_main(struct source *s, struct zip *z, char out[static ZIP_NAME_MAX]);
/* The title in docProps/core.xml, if any, becomes the builder's. */
int office_title(struct source *s, struct zip *z);
/* Reads a part if it is there. 0, 1: it is not, -1 after refuse(). */
int office_part(struct source *s, struct zip *z, const char *name, const struct xml_events *events, void *arg);
