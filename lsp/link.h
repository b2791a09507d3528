/* link.h - from a process to its daemon: connect, start one where nobody answers, say hello.
 *
 * Blocks, for some seconds at most. The process must have one thread: a daemon is started by fork.
 */
#ifndef RD_LSP_LINK_H
#define RD_LSP_LINK_H

#include "core/base/buf.h"
#include "lsp/hello.h"

enum { RD_STARTS_A_MINUTE = 3 }; /* of daemons, by one user */

/* *fd: a connection whose hello was taken; *answer (may be NULL): the daemon's line. `hello->build` is filled in here.
 * `starts`: daemons that may be started within a minute; 0: start none, and RD_NOT_FOUND when there is none. */
rd_status rd_link_open(rd_hello hello, int starts, int *fd, rd_buf *answer, rd_error *err);
/* Say it to every daemon of this user, of any build, and wait for each line, for `wait_s` at most. *told: those that answered. Fails
 * when one that is there did not. */
rd_status rd_link_tell_all(rd_hello hello, int wait_s, int *told, rd_error *err);

#endif
