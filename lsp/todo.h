/* todo.h - where somebody left a hole in code on purpose, and which bytes of it are to be written anew.
 *
 * A comment line that begins with TODO, FIXME or XXX; a line that is just `...`; `pass` and `...` as a Python body; an
 * empty body `{}` in languages with braces; and what stands for code not written yet: `todo!()`, `???`,
 * `raise NotImplementedError` and their kin. Indentation and the line's end stay outside. It reads
 * lines, not grammar, and would rather find nothing than an empty object or a format string. Pure; any thread.
 */
#ifndef RD_LSP_TODO_H
#define RD_LSP_TODO_H

#include <stdbool.h>
#include <stddef.h>

typedef struct rd_todo {
    size_t start, end; /* to be replaced; between braces, and then maybe empty */
    bool says_what;    /* it begins with a comment, which says what is to be written */
} rd_todo;

/* The first hole on the lines that [from, to) touches. `language`: as an editor names it, may be "". */
bool rd_todo_find(const char *language, const char *text, size_t n, size_t from, size_t to,
                  rd_todo *out);

#endif
