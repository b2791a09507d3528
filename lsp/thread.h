/* thread.h - a thread beside the loop's: the loop's thread alone handles the signals that others send. */
#ifndef RD_LSP_THREAD_H
#define RD_LSP_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* It meets the signals that it causes itself, so that its death is noted like any other, and no others. False: the system
 * has no thread to give. */
bool rd_thread_start(pthread_t *id, void *(*work)(void *arg), void *arg);

#endif
