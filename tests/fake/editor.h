/* editor.h - a connection with everything around it made up: a clock, a model that answers when it is told to, an editor's messages.
 *
 * One thread. What the connection sends is framed; here it comes back as JSON values.
 */
#ifndef RD_FAKE_EDITOR_H
#define RD_FAKE_EDITOR_H

#include "lsp/conn.h"

enum { EDITOR_JOBS = 64 };

typedef struct editor {
    rd_host host;
    rd_config config;
    rd_conn *conn;
    double now, wake_at;
    rd_job *jobs[EDITOR_JOBS]; /* submitted and not given back, the oldest first */
    int n_jobs, submitted, cancels;
    char forgot[4096]; /* the file that was to be forgotten last */
    int forgets;
    rd_model_state model;
    int next_id;
    json_t *notes; /* notifications and requests of the server, in their order */
} editor;

/* A connection that is initialized; `capabilities` and `options` are JSON, NULL for {}. */
void editor_open(editor *e, const char *capabilities, const char *options);
void editor_close(editor *e);

/* Send a message; `format` makes params as json_pack does not: as text. "'" stands for '"' in it. */
void editor_notify(editor *e, const char *method, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int editor_request(editor *e, const char *method, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void editor_raw(editor *e, const char *json);
void editor_reply(editor *e, json_int_t id, const char *result);
/* Take what the server has sent: notes are put aside, the answers stay. */
void editor_receive(editor *e);
/* The answer to a request: an object with `result` or `error`; NULL when there is none. The caller's. */
json_t *editor_answer(editor *e, int id);
/* The oldest note of this method, taken out; NULL. The caller's. */
json_t *editor_note(editor *e, const char *method);

void editor_does(editor *e, const char *uri, const char *text);
/* Type `text` at a place: an edit in its document, the next version. */
void editor_types(editor *e, const char *uri, int line, int character, const char *text);
/* Move the clock and ring the timer when it is due. */
void editor_waits(editor *e, double ms);

/* The model answers its oldest job that is not cancelled (`texts` end with NULL); false when there is none. */
bool editor_model_says(editor *e, double confidence, const char *text, ...);
bool editor_model_fails(editor *e, rd_status status, const char *why);
/* Cancelled jobs come back. */
void editor_sweeps(editor *e);
rd_job *editor_job(editor *e); /* the oldest that is not cancelled; NULL */

#endif
