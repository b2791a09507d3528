/* chat_prompt.h - the parts of a request to tokens, for chat checkpoints that do not know our own tags.
 *
 *   [system turn, if the template has one][user turn: what to do, file name, instruction,
 *   <earlier> far prefix </earlier> <after> quoted suffix </after> (<piece> draft </piece>) <before> near prefix]
 *   [assistant turn: echo] | hole, anchor
 *
 * The user turn quotes both sides, so that every block of the hole has seen the suffix; the assistant's turn
 * rewrites a small region: the last prefix tokens, the hole, the first suffix tokens, pinned. `|` is a block
 * boundary: the echo is just as long as it takes. Parts stand in the order of how seldom they change, and
 * nothing but the turn's end stands behind the near prefix: a keystroke costs two blocks at most. A prefix too
 * short for its echo (a file's first tokens) is made up for by newlines before <before>: three blocks then.
 * RD_CHAT_22 is as unverified as its template is.
 *
 * Control ids come from the chat template's layout (core/format/chat) alone; <earlier> and the like
 * are plain text, as are all parts. Pure functions; any thread.
 */
#ifndef RD_DECODE_CHAT_PROMPT_H
#define RD_DECODE_CHAT_PROMPT_H

#include "core/decode/prompt.h"
#include "core/format/chat.h"

/* Pointers are borrowed; texts are any bytes. */
typedef struct rd_chat_parts {
    const char *name;        /* of the file or its language; NULL or empty: neither is known */
    const char *instruction; /* NULL or empty: none */
    const char *prefix, *suffix;
    const char *draft; /* NULL: a hole; else what stands in the span that is rewritten */
    size_t instruction_bytes, prefix_bytes, suffix_bytes, draft_bytes;
} rd_chat_parts;

/* The sizes the chat layout is used with. */
rd_layout rd_chat_layout(int block);

/* Cut, encode and lay out; the context is a multiple of the block, the anchor at most a block.
 * RD_INVALID when the tokenizer lacks a tag of the template, or for an instruction above 4096 bytes. */
rd_status rd_chat_prompt_make(const rd_tokenizer *t, rd_chat_kind kind, const rd_layout *l,
                              const rd_chat_parts *p, rd_prompt *out, rd_error *err);

#endif
