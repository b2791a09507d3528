/* thread.c - see thread.h. */
#include "lsp/thread.h"

#include <signal.h>
#include <stddef.h>

bool rd_thread_start(pthread_t *id, void *(*work)(void *arg), void *arg)
{
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP };
    sigset_t others, before;

    sigfillset(&others);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&others, own[i]);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    bool started = !pthread_create(id, NULL, work, arg);

    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}
