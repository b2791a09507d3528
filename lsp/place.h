/* place.h - where the daemon of a user and build is found: a folder of the user's own, a socket, two locks in it.
 *
 * The folder is $XDG_RUNTIME_DIR/redraft, else /tmp/redraft-UID; it must be the user's, a real folder, closed to others.
 * The files in it carry the build and what the environment chooses, so that nobody meets a daemon of another kind. A
 * daemon holds one lock for as long as it lives, whoever starts one holds another: both end with their process, so nothing
 * is ever stale. One thread at a time.
 */
#ifndef RD_LSP_PLACE_H
#define RD_LSP_PLACE_H

#include "core/base/status.h"

#include <stdbool.h>

typedef struct rd_place rd_place;

/* Fails with RD_INVALID where the folder is not ours alone, RD_IO where it cannot be had. */
rd_status rd_place_open(rd_place **out, rd_error *err);
void rd_place_close(rd_place *p); /* gives the daemon's lock back, if held */
const char *rd_place_build(const rd_place *p);
const char *rd_place_socket(const rd_place *p); /* for people */

/* A socket that a daemon of this user and build answered. RD_NOT_FOUND: nobody is there. */
rd_status rd_place_connect(rd_place *p, int *fd, rd_error *err);
/* Sockets of all daemons of this user that answer, of any build and environment; how many. */
int rd_place_connect_all(rd_place *p, int *fds, int most);
/* Become the daemon: waits up to `wait_ms` for the lock, RD_STALE when another keeps it. *died: the process that held it
 * and did not leave by rd_place_leave; 0: none. The socket is the caller's. */
rd_status rd_place_listen(rd_place *p, int wait_ms, int *fd, long *died, rd_error *err);
void rd_place_hide(rd_place *p); /* take the socket away: nobody finds this daemon any more */
void rd_place_leave(
    rd_place *p); /* and note that it left in order; the lock stays until rd_place_close */
/* Wait until no daemon lives here; false when one still does after `wait_ms`. */
bool rd_place_wait_gone(rd_place *p, int wait_ms);

/* The lock of those who start a daemon, of any build; ends when *fd is closed. */
rd_status rd_place_lock_start(rd_place *p, int wait_ms, int *fd, rd_error *err);
/* Under that lock: count a start. RD_STALE when there were `most` within a minute. */
rd_status rd_place_count_start(rd_place *p, int most, rd_error *err);

/* Whether the other end runs as our user. */
bool rd_place_peer_is_ours(int fd);
/* The variables that a daemon keeps, as for execve, made of this process' own; free() the array and nothing else. */
char **rd_place_environment(void);

#endif
