/* prompt.h - the parts of a request to tokens, in the layout the built-in model was trained on.
 *
 *   [language tag][far prefix][suffix tag, quoted suffix][prefix tag, near prefix][fill tag, echo] | hole, anchor
 *
 * tiled into blocks from position 0; `|` is a block boundary. Parts stand in the order of how seldom
 * they change. The far prefix's ends move in jumps of `far_step` tokens counted from the start of the
 * prefix text; the near prefix is what lies between its end and the cursor. The quoted suffix starts at the
 * newline that ends the cursor's line. The echo repeats the last tokens before the hole, just so many that it
 * ends on a block boundary. The anchor is what stands right of the cursor: its tokens are pinned
 * behind the hole.
 *
 * Prefix, suffix quote and anchor are encoded separately, as plain text: no byte of the user's ever
 * becomes a control id. Training and use call the same functions. Pure functions; any thread.
 */
#ifndef RD_DECODE_PROMPT_H
#define RD_DECODE_PROMPT_H

#include "core/base/buf.h"
#include "core/base/status.h"
#include "core/format/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

/* Control ids of the layout, looked up by string. -1: the tokenizer has none. */
typedef struct rd_layout_ids {
    int32_t mask, del, split, eos, pad;
    int32_t suffix, prefix, fill;
    int32_t language[3]; /* enum rd_language */
} rd_layout_ids;

enum rd_language { RD_LANGUAGE_OTHER, RD_LANGUAGE_PYTHON, RD_LANGUAGE_C };

/* True when the tokenizer has all tags of the layout. */
int rd_layout_find(const rd_tokenizer *t, rd_layout_ids *out);
/* By a name ("python", "c", "cpp") or a file name's ending; never fails. */
enum rd_language rd_language_of(const char *name);

typedef struct rd_layout {
    int block;      /* 32 */
    int far_most;   /* tokens of far prefix at most; a multiple of far_step */
    int far_step;   /* 128 */
    int near_least; /* the near prefix has at least so many, while there are such */
    int quote_most; /* tokens of quoted suffix at most */
} rd_layout;

/* What the built-in model is trained with and used with. */
rd_layout rd_layout_default(void);

/* The context up to and with the echo: appended to `out`, a multiple of the block. `prefix` are all
 * tokens before the hole from the text's start (or from a cut; see rd_prompt_parts_make), `quote` those of the suffix
 * from the end of the cursor's line. */
void rd_layout_context(rd_ids *out, const rd_layout *l, const rd_layout_ids *ids,
                       enum rd_language language, const int32_t *prefix, int prefix_n,
                       const int32_t *quote, int quote_n);

/* A request's text as tokens. */
typedef struct rd_prompt {
    rd_ids context; /* a multiple of the block */
    rd_ids anchor;  /* tokens right of the hole, at most `anchor_most` */
} rd_prompt;

/* The text on both sides of a cursor, cut and encoded but not laid out. */
typedef struct rd_prompt_parts {
    rd_ids prefix; /* from the text's start, or from a cut */
    rd_ids quote;  /* the suffix from the newline that ends the cursor's line */
    rd_ids anchor; /* the suffix from the cursor */
} rd_prompt_parts;

/* Of a long prefix only the end is encoded, from a line start found so that it moves in jumps; of a long
 * suffix only the beginning. `prefix` and `suffix` are any bytes. */
rd_status rd_prompt_parts_make(const rd_tokenizer *t, const char *prefix, size_t prefix_bytes,
                               const char *suffix, size_t suffix_bytes, rd_prompt_parts *out,
                               rd_error *err);
void rd_prompt_parts_clear(rd_prompt_parts *p);

/* Cut, encode and lay out. */
rd_status rd_prompt_make(const rd_tokenizer *t, const rd_layout *l, const rd_layout_ids *ids,
                         enum rd_language language, const char *prefix, size_t prefix_bytes,
                         const char *suffix, size_t suffix_bytes, int anchor_most, rd_prompt *out,
                         rd_error *err);
void rd_prompt_clear(rd_prompt *p);

#endif
