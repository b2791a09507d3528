/* message.h - JSON-RPC 2.0 messages as values: one frame to one message, and the messages we send.
 *
 * No state and no I/O: what a message may do when is rpc.h's matter.
 */
#ifndef RD_LSP_MESSAGE_H
#define RD_LSP_MESSAGE_H

#include "core/base/buf.h"
#include "core/base/status.h"
#include "lsp/limits.h"
#include "lsp/utf8.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Codes of JSON-RPC and of LSP. */
enum {
    RD_PARSE_ERROR = -32700,
    RD_INVALID_REQUEST = -32600,
    RD_METHOD_NOT_FOUND = -32601,
    RD_INVALID_PARAMS = -32602,
    RD_INTERNAL_ERROR = -32603,
    RD_SERVER_NOT_INITIALIZED = -32002,
    RD_REQUEST_FAILED = -32803,
    RD_CONTENT_MODIFIED = -32801,
    RD_REQUEST_CANCELLED = -32800
};

/* An id as the client spelled it: an integer or a string. */
typedef enum rd_id_kind { RD_ID_NULL, RD_ID_NUMBER, RD_ID_TEXT } rd_id_kind;
typedef struct rd_id {
    rd_id_kind kind;
    int64_t number;
    size_t n;
    char text[RD_MOST_ID_BYTES]; /* n bytes, no NUL behind */
} rd_id;

/* False when the value is no id (RD_ID_NULL for absent and null, which are none). */
bool rd_id_read(const json_t *value, rd_id *out);
json_t *rd_id_write(const rd_id *id);
bool rd_id_equal(const rd_id *a, const rd_id *b);

typedef enum rd_message_kind {
    RD_MESSAGE_REQUEST,
    RD_MESSAGE_NOTIFICATION,
    RD_MESSAGE_RESPONSE,
    RD_MESSAGE_NOTHING /* neither a method nor an id: to be dropped */
} rd_message_kind;

typedef struct rd_message {
    rd_message_kind kind;
    rd_id id;                     /* of a request or a response */
    const char *method;           /* of a request or a notification */
    const json_t *params;         /* an object; NULL for absent, null, {} and [] */
    const json_t *result, *error; /* of a response */
    uint64_t ticket;              /* rpc.h's name of a request; 0 here */
    json_t *top;                  /* owns all of the above */
} rd_message;

/* What is to be answered to a frame that is no message. */
typedef struct rd_refusal {
    int code;
    rd_id id;  /* RD_ID_NULL where it could not be read */
    bool lost; /* it may have been a change of a document */
    rd_error why;
} rd_refusal;

/* Read a frame. Fails with RD_INVALID and fills *refusal. */
rd_status rd_message_read(const char *frame, size_t n, rd_encoding encoding, rd_message *out,
                          rd_refusal *refusal);
void rd_message_clear(rd_message *m);

/* Append a message as compact JSON, without framing. These take `result`, `params` and `data`; NULL is null for
 * a result and absent for the others. */
void rd_message_result(rd_buf *out, const rd_id *id, json_t *result);
void rd_message_error(rd_buf *out, const rd_id *id, int code, const char *text, json_t *data);
void rd_message_notification(rd_buf *out, const char *method, json_t *params);
void rd_message_request(rd_buf *out, int64_t id, const char *method, json_t *params);
/* Append a message that is whole. */
void rd_message_write(rd_buf *out, const json_t *message);

#endif
