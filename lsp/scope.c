/* scope.c - from a URI or a path to a verdict: links resolved, the folder's rules asked, the answer kept for a moment.
 *
 * A document is asked about with every keystroke, and so are the documents around it, so everything that takes a system call or a
 * walk over patterns is remembered by the string that was asked about.
 */
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "lsp/folder.h"
#include "lsp/limits.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
    FOLDERS = 32, /* whose rules are kept */
    PLACES = 256  /* strings whose verdict is kept */
};

/* A resolved path and what the rules of its folder say. */
typedef struct name {
    char *path;      /* NULL: there is none */
    uint64_t serial; /* of the rules that judged it */
    rd_verdict verdict;
    char *why;
} name;

typedef enum origin { ON_DISK, NO_FILE, NOT_CLEAR } origin;

typedef struct place {
    char *asked;
    origin origin;
    name target, link; /* `link`: the path by which it was asked, where that is another */
    double resolved_ms;
    uint64_t used;
} place;

struct rd_scope {
    rd_ground ground;
    rd_settings as_loaded; /* what `ground.user` said when the rules were made */
    rd_rules *base;        /* for what has no file */
    uint64_t base_serial;
    double compared_ms;
    uint64_t clock;
    rd_folder *folders[FOLDERS];
    place *places[PLACES];
};

static void clear_name(name *n)
{
    free(n->path);
    free(n->why);
    *n = (name){ 0 };
}

static void free_place(place *p)
{
    if (!p) return;
    clear_name(&p->target);
    clear_name(&p->link);
    free(p->asked);
    free(p);
}

static void forget(rd_scope *s)
{
    for (int i = 0; i < FOLDERS; i++) rd_folder_free(s->folders[i]);
    for (int i = 0; i < PLACES; i++) free_place(s->places[i]);
    memset(s->folders, 0, sizeof s->folders);
    memset(s->places, 0, sizeof s->places);
    rd_rules_free(s->base);
    s->base = NULL;
}

static void load_user(rd_scope *s, double now)
{
    rd_settings_init(&s->as_loaded, s->ground.user);
    s->base = rd_ground_rules(&s->ground);
    s->base_serial = ++s->ground.serial;
    s->compared_ms = now;
}

rd_scope *rd_scope_new(const rd_settings *user, const char *const *folders, int n_folders)
{
    rd_scope *s = rd_alloc0(sizeof *s);

    s->ground.user = user;
    s->ground.told = json_object();
    s->ground.roots = rd_alloc_array((size_t)n_folders + 1, sizeof(char *));
    for (int i = 0; i < n_folders; i++) {
        char *real = realpath(folders[i], NULL);

        if (real && real[1] == 0) *real = 0;
        if (real) s->ground.roots[s->ground.n_roots++] = real;
    }
    load_user(s, rd_now_ms());
    return s;
}

void rd_scope_free(rd_scope *s)
{
    if (!s) return;
    forget(s);
    for (int i = 0; i < s->ground.n_roots; i++) free(s->ground.roots[i]);
    free(s->ground.roots);
    json_decref(s->ground.told);
    rd_buf_clear(&s->ground.complaints);
    rd_settings_clear(&s->as_loaded);
    free(s);
}

void rd_scope_complaints(rd_scope *s, rd_buf *out)
{
    rd_buf_append(out, s->ground.complaints.data, s->ground.complaints.len);
    rd_buf_reset(&s->ground.complaints);
}

/* Rules are made of these two; the other settings are read when they are asked for. */
static void follow_user(rd_scope *s, double now)
{
    if (now - s->compared_ms < RD_LOOK_MS) return;
    s->compared_ms = now;
    if (json_equal(s->as_loaded.exclude, s->ground.user->exclude) &&
        json_equal(s->as_loaded.languages, s->ground.user->languages))
        return;
    forget(s);
    rd_settings_clear(&s->as_loaded);
    load_user(s, now);
}

/* ---- paths ---- */

/* Append the pieces of a path, without empty ones and "."; false where one goes up. */
static bool append_pieces(rd_buf *out, const char *path)
{
    while (*path) {
        size_t n = strcspn(path, "/");

        if (n == 2 && path[0] == '.' && path[1] == '.') return false;
        if (n > 0 && !(n == 1 && *path == '.')) {
            rd_buf_text(out, "/");
            rd_buf_append(out, path, n);
        }
        path += n + (path[n] == '/');
    }
    return true;
}

/* The folder's links followed, the last name as it stands. NULL where there is no such folder. */
static char *resolve_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = rd_copy_text(path, (size_t)(slash - path) + 1), *real = realpath(folder, NULL);
    rd_buf whole = { 0 };

    free(folder);
    if (!real) return NULL;
    rd_buf_text(&whole, real[1] ? real : "");
    free(real);
    if (slash[1] && append_pieces(&whole, slash + 1)) return whole.data;
    rd_buf_clear(&whole);
    return NULL;
}

/* Of a file that is not there yet: the links of the longest part that is there followed. NULL where that part ends in a
 * link to nothing, since writing would make what the link names. */
static char *resolve_new(const char *path)
{
    size_t n = strlen(path);
    char *there = NULL;
    struct stat st;
    rd_buf whole = { 0 };

    while (n > 0 && !there) {
        while (n > 0 && path[--n] != '/') {
        }
        char *part = rd_copy_text(path, n ? n : 1);

        there = realpath(part, NULL);
        bool is_missing = !there && errno == ENOENT;

        free(part);
        if (!there && !is_missing) return NULL;
    }
    if (!there) return NULL;
    rd_buf_text(&whole, there[1] ? there : "");
    free(there);
    size_t old = whole.len, next = n + 1 + strcspn(path + n + 1, "/");
    char *first = rd_copy_text(path, next);
    bool is_link = !lstat(first, &st);

    free(first);
    if (!is_link && append_pieces(&whole, path + n) && whole.len > old) return whole.data;
    rd_buf_clear(&whole);
    return NULL;
}

static bool is_same(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

/* Takes `path`; a verdict about the same one stays. */
static void set_path(name *n, char *path)
{
    if (is_same(n->path, path)) {
        free(path);
        return;
    }
    clear_name(n);
    n->path = path;
}

static void resolve_file(place *p, const char *path)
{
    char *target = realpath(path, NULL), *link = NULL;

    if (target)
        link = resolve_folder(path);
    else if (errno == ENOENT)
        target = resolve_new(path);
    if (is_same(target, link)) {
        free(link);
        link = NULL;
    }
    p->origin = target ? ON_DISK : NOT_CLEAR;
    set_path(&p->target, target);
    set_path(&p->link, link);
}

/* What an editor shows under another scheme may still be a file's text: `git:/p/.env` is judged by those names. */
static void resolve_text(place *p, const char *rest)
{
    rd_buf uri = { 0 }, whole = { 0 };
    char path[RD_MOST_PATH_BYTES + 1];

    rd_buf_text(&uri, "file:///");
    rd_buf_append(&uri, rest, strcspn(rest, "?#"));
    p->origin = NO_FILE;
    if (!rd_path_of_uri(uri.data, path, sizeof path) || !append_pieces(&whole, path)) {
        p->origin = NOT_CLEAR;
        rd_buf_clear(&whole);
    }
    set_path(&p->target, whole.data);
    rd_buf_clear(&uri);
}

static void resolve(place *p, double now)
{
    char path[RD_MOST_PATH_BYTES + 1];
    const char *colon = strchr(p->asked, ':');

    p->resolved_ms = now;
    if (*p->asked == '/')
        resolve_file(p, p->asked);
    else if (rd_path_of_uri(p->asked, path, sizeof path))
        resolve_file(p, path);
    else if (colon && strncasecmp(p->asked, "file:", 5) != 0)
        resolve_text(p, colon + 1);
    else
        p->origin = NOT_CLEAR;
}

/* ---- what is remembered ---- */

/* The rules of the folder that a file stands in. */
static rd_folder *folder_of(rd_scope *s, const char *path, double now)
{
    size_t n = (size_t)(strrchr(path, '/') - path);
    int oldest = 0, i;

    for (i = 0; i < FOLDERS && s->folders[i]; i++) {
        if (!strncmp(s->folders[i]->path, path, n) && s->folders[i]->path[n] == 0) break;
        if (s->folders[i]->used < s->folders[oldest]->used) oldest = i;
    }
    if (i == FOLDERS) {
        i = oldest;
        rd_folder_free(s->folders[i]);
        s->folders[i] = NULL;
    }
    if (!s->folders[i]) s->folders[i] = rd_folder_new(path, n);
    s->folders[i]->used = ++s->clock;
    rd_folder_look(s->folders[i], &s->ground, now);
    return s->folders[i];
}

static place *place_of(rd_scope *s, const char *asked, double now)
{
    int oldest = 0, i;

    follow_user(s, now);
    for (i = 0; i < PLACES && s->places[i]; i++) {
        if (!strcmp(s->places[i]->asked, asked)) break;
        if (s->places[i]->used < s->places[oldest]->used) oldest = i;
    }
    if (i == PLACES) {
        i = oldest;
        free_place(s->places[i]);
        s->places[i] = NULL;
    }
    if (!s->places[i]) {
        s->places[i] = rd_alloc0(sizeof(place));
        s->places[i]->asked = rd_copy_text(asked, strlen(asked));
        resolve(s->places[i], now);
    } else if (now - s->places[i]->resolved_ms >= RD_LOOK_MS) {
        resolve(s->places[i], now);
    }
    s->places[i]->used = ++s->clock;
    return s->places[i];
}

/* ---- judging ---- */

static rd_verdict keep(name *n, uint64_t serial, rd_verdict verdict, const char *why)
{
    char *copy = why ? rd_copy_text(why, strlen(why)) : NULL;

    free(n->why);
    n->why = copy;
    n->serial = serial;
    return n->verdict = verdict;
}

static rd_verdict judge(name *n, const rd_rules *rules, uint64_t serial, const char *refusal)
{
    rd_candidate c = { .path = n->path };
    const char *why = NULL;

    if (n->serial == serial) return n->verdict;
    rd_verdict verdict = rd_excluded(rules, &c, &why);

    if (refusal && verdict == RD_ALLOWED) return keep(n, serial, RD_EXCLUDED_PROJECT, refusal);
    return keep(n, serial, verdict, why);
}

static rd_verdict judge_file(rd_scope *s, name *n, double now)
{
    if (!n->path) return RD_ALLOWED;
    rd_folder *f = folder_of(s, n->path, now);

    return judge(n, f->rules, f->serial, f->refusal);
}

/* By its names alone. */
static rd_verdict judge_place(rd_scope *s, place *p, double now, const char **why)
{
    rd_verdict verdict = RD_ALLOWED;

    *why = NULL;
    if (p->origin == ON_DISK) {
        verdict = judge_file(s, &p->target, now);
        *why = p->target.why;
        if (verdict == RD_ALLOWED) {
            verdict = judge_file(s, &p->link, now);
            *why = p->link.why;
        }
    } else if (p->target.path) {
        verdict = judge(&p->target, s->base, s->base_serial, NULL);
        *why = p->target.why;
    }
    return verdict;
}

rd_verdict rd_scope_excluded(rd_scope *s, const char *uri_or_path, size_t bytes, const char *head,
                             size_t head_n, const char **why)
{
    rd_candidate text = { .bytes = bytes, .head = head, .head_n = head_n };
    double now = rd_now_ms();
    place *p = place_of(s, uri_or_path, now);
    const char *ignored;

    if (!why) why = &ignored;
    if (p->origin == NOT_CLEAR) {
        *why = "not a path that can be judged";
        return RD_EXCLUDED_PATH;
    }
    rd_verdict verdict = judge_place(s, p, now, why);

    return verdict == RD_ALLOWED ? rd_excluded(s->base, &text, why) : verdict;
}

rd_file_settings rd_scope_settings(rd_scope *s, const char *uri_or_path, const char *language)
{
    double now = rd_now_ms();
    place *p = place_of(s, uri_or_path, now);
    const rd_settings *user = s->ground.user;
    rd_file_settings defaults = { .enabled = user->enable,
                                  .uncached = !user->cache,
                                  .quality = user->quality,
                                  .min_confidence = user->min_confidence,
                                  .max_ms = user->max_ms,
                                  .debounce_ms = user->debounce_ms };

    if (p->origin != ON_DISK) return rd_settings_for(s->base, "", language, defaults);
    return rd_settings_for(folder_of(s, p->target.path, now)->rules, p->target.path, language,
                           defaults);
}

const char *rd_scope_source(rd_scope *s, const char *uri_or_path)
{
    const place *p = place_of(s, uri_or_path, rd_now_ms());

    return p->origin == ON_DISK ? p->target.path : p->asked;
}
