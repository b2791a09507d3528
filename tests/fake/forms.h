/* forms.h - one good message of each kind that a peer may send, and values that do not belong where they stand.
 *
 * A form is spoilt by putting a value in the place of one node of its params, the params themselves included. Places are
 * numbered in the order of the text; values are JSON as a careless or hostile peer writes it, some of it not valid.
 */
#ifndef RD_FAKE_FORMS_H
#define RD_FAKE_FORMS_H

#include "core/base/buf.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct form {
    const char *method;
    bool is_request;
    const char *params; /* JSON in which ' stands for " */
} form;

extern const form forms_lsp[], forms_mcp[];
extern const size_t forms_lsp_count, forms_mcp_count;
extern const char *const form_values[];
extern const size_t form_values_count;

/* How many places the params have. */
size_t form_places(const form *f);

typedef struct spoilt {
    size_t place;
    const char *value; /* NULL: it is taken out */
} spoilt;

/* Append the message. `id` 0: a notification. Of `n` changes each is made where it still has a place. */
void form_write(const form *f, int id, const spoilt *changes, size_t n, rd_buf *out);

#endif
