/* chat.h - the two chat layouts of LLaDA2.x, written here and selected by the checkpoint's template text.
 *
 * No template is ever executed: the file's template is only looked at to tell which of the known layouts it
 * is; an unknown one is refused by name. Control tokens are inserted by id, contents are encoded as plain
 * text. RD_CHAT_22 is UNVERIFIED: no public file confirms its layout byte for byte.
 * Source: the Ling-2.0 template of LLaDA2.0 and 2.1; the 2.2 model card.
 */
#ifndef RD_FORMAT_CHAT_H
#define RD_FORMAT_CHAT_H

#include "core/format/tokenizer.h"

typedef enum rd_chat_kind { RD_CHAT_NONE, RD_CHAT_20, RD_CHAT_22 } rd_chat_kind;

typedef enum rd_chat_role {
    RD_CHAT_SYSTEM,
    RD_CHAT_USER,
    RD_CHAT_ASSISTANT,
    RD_CHAT_TOOL
} rd_chat_role;

typedef struct rd_chat_message {
    rd_chat_role role;
    const char *text;
    size_t bytes;
} rd_chat_message;

/* Which layout DIR/tokenizer_config.json (or chat_template.jinja) asks for; no template: RD_CHAT_NONE. */
rd_status rd_chat_detect(const char *dir, rd_chat_kind *out, rd_error *err);
/* The same from a template's text. */
rd_status rd_chat_detect_text(const char *template_text, const char *name, rd_chat_kind *out,
                              rd_error *err);
/* Append the messages and the assistant's opening. RD_INVALID when the tokenizer lacks a tag. */
rd_status rd_chat_encode(const rd_tokenizer *t, rd_chat_kind kind, const rd_chat_message *messages,
                         int n, rd_ids *out, rd_error *err);
/* One user turn whose tokens the caller appends itself, between these two: what stands before them, and
 * what ends them and opens the assistant's turn. */
rd_status rd_chat_open_user(const rd_tokenizer *t, rd_chat_kind kind, rd_ids *out, rd_error *err);
rd_status rd_chat_close_user(const rd_tokenizer *t, rd_chat_kind kind, rd_ids *out, rd_error *err);

#endif
